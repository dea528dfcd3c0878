//! What can be wrong with what decides which images run: policies, where signatures are looked for, the accounts, what expires.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[
    NO_TRUST,
    OUTSIDER,
    DEFAULT,
    REGISTRY,
    UNSIGNED_SCOPE,
    TRANSPORT,
    LOOKASIDE,
    ADMINISTRATOR,
    OTHER_KEYS,
    REDIRECTED,
    UNGUARDED,
    CHANGEABLE,
    UNREADABLE,
    DRIFT,
    WRITABLE,
    BYPASSED,
    OTHER_HOME,
    UNMANAGED,
    GONE,
    OTHER_GROUPS,
    NOT_A_USER,
    CLUSTER_USER,
    CLUSTER_ADMINISTRATOR,
    KEY_EXPIRED,
    KEY_EXPIRING,
    CERTIFICATE_EXPIRED,
    CERTIFICATE_EXPIRING,
];

const fn kind(
    code: &'static str,
    (severity, weight): (Severity, u32),
    title: &'static str,
    explanation: &'static str,
    remedy: &'static str,
) -> Kind {
    Kind { code, check: Check::Policy, severity, weight, title, explanation, remedy }
}

/// Stores, and nothing that says whose images are good.
pub const NO_TRUST: Kind = kind(
    "no-trust",
    (Severity::Critical, 102),
    "images are used, and nobody has said whose",
    "Somebody has images in a container store, and this host has no trust: no policy of podsec's decides which images run, so for most people \
        any image does. Until there is trust, the host's own policy is not judged for each of them.",
    "Set trust up: podsecctl trust init; then: podsecctl trust grant",
);

/// Images, and not among those who may have them.
pub const OUTSIDER: Kind = kind(
    "store-outsider",
    (Severity::High, 101),
    "somebody has images who is no image user",
    "He has images in a store of his own and is not in the group of image users, so no guard was placed for him, and what he runs is \
        his own decision.",
    "Make an account for it: podsecctl user create --category image-user; and remove the images of this one: podman system reset",
);

/// Accepts what no scope names.
pub const DEFAULT: Kind = kind(
    "policy-default",
    (Severity::Critical, 102),
    "a policy that does not reject what it does not name",
    "The default of this policy.json is something else than reject: images from registries that nobody answers for are taken.",
    "Of a user: remove the file, then podsecctl user create NAME places the guard again. The host's: podsecctl trust diff, then \
        podsecctl trust rollback REVISION --overwrite with the current revision",
);

/// The host's registry is not among those whose signatures are demanded.
pub const REGISTRY: Kind = kind(
    "policy-registry",
    (Severity::Critical, 103),
    "a policy that demands no signatures for the host's registry",
    "Trust has creators who sign in this host's registry, and this policy.json demands no signature for anything in it.",
    "Of a user: remove the file, so that the host's policy counts. The host's: podsecctl trust diff, then podsecctl trust rollback \
        REVISION --overwrite with the current revision",
);

/// A scope that takes anything.
pub const UNSIGNED_SCOPE: Kind = kind(
    "policy-unsigned-scope",
    (Severity::Critical, 104),
    "a policy with registries whose images need no signature",
    "For some registries, or parts of one, this policy.json takes every image, whoever made it.",
    "Of a user: remove the file, so that the host's policy counts. The host's: have a creator sign there (podsecctl trust grant), then \
        podsecctl trust rollback REVISION --overwrite with the current revision",
);

/// Another way than a registry.
pub const TRANSPORT: Kind = kind(
    "policy-transport",
    (Severity::High, 105),
    "a policy that takes images by other ways than from a registry",
    "Beside docker, this policy.json names transports (containers-transports(5)) by which images come in that are not rejected: from a \
        directory, an archive, a daemon.",
    "Of a user: remove the file, so that the host's policy counts. The host's: podsecctl trust diff, then podsecctl trust rollback \
        REVISION --overwrite with the current revision",
);

/// Signatures are looked for elsewhere.
pub const LOOKASIDE: Kind = kind(
    "lookaside-differs",
    (Severity::High, 106),
    "signatures are looked for somewhere else than trust says",
    "For a registry of trust, registries.d names another lookaside, or none: signatures are not found, or are somebody else's.",
    "Remove the file, or what it says of this registry; what podsec writes: podsecctl trust show; what is different: podsecctl trust diff",
);

/// In both groups.
pub const ADMINISTRATOR: Kind = kind(
    "image-user-administers",
    (Severity::High, 107),
    "an image user who is an administrator",
    "He is in the group of image users and in that of administrators. Who may change the policy is not held to it.",
    "Take him out of one of the two: gpasswd --delete NAME GROUP; podsecctl user verify NAME",
);

/// Signed, by keys of somebody else's choice.
pub const OTHER_KEYS: Kind = kind(
    "policy-other-keys",
    (Severity::Critical, 104),
    "a policy that takes signatures by other keys than trust's",
    "For some scopes this policy.json demands something else than the host's does: whoever has the other keys signs there.",
    "Remove the file, so that the host's policy counts; who signs where: podsecctl trust show",
);

/// Images of the registry come from elsewhere.
pub const REDIRECTED: Kind = kind(
    "registry-redirected",
    (Severity::Medium, 50),
    "images of a registry of trust come from somewhere else",
    "A registries.conf has a mirror or another location for a registry of trust, or lets it be reached without TLS where trust has \
        TLS. Signatures still count, but who runs the other one decides which of the signed images are seen.",
    "Remove what the file says of this registry; what podsec writes: podsecctl trust show",
);

/// No guard. 90 is shared by all image users.
pub const UNGUARDED: Kind = kind(
    "image-user-unguarded",
    (Severity::High, 90),
    "an image user without the guard",
    "Root's policy.json is not in his ~/.config/containers, so a policy of his own would count. All such findings together weigh 90 \
        times the share of image users that they are about.",
    "Place it: podsecctl user create NAME; for an account that podsec did not make, make one: podsecctl user create",
);

/// A guard that can be taken away. 90 is shared by all image users.
pub const CHANGEABLE: Kind = kind(
    "image-user-config-writable",
    (Severity::High, 90),
    "an image user who can change his configuration of containers",
    "The guard is there, but he, or others, can write to ~/.config/containers or rename it: by permission bits, or because it or \
        ~/.config is not immutable (chattr +i). All such findings together weigh 90 times the share of image users that they are about.",
    "Place it again: podsecctl user create NAME; where the file system has no such attribute, move homes to one that has",
);

/// Nobody knows what it says.
pub const UNREADABLE: Kind = kind(
    "config-unreadable",
    (Severity::Medium, 50),
    "a configuration of containers that cannot be judged",
    "The file is there and is not read: no plain file, too long, closed to its own reader, or not what it should be. podman refuses \
        such a file, or reads it as something else than it looks like.",
    "Mend or remove it; containers-policy.json(5), containers-registries.d(5), containers-registries.conf(5); podsecctl trust check",
);

/// Not as podsec wrote it.
pub const DRIFT: Kind = kind(
    "trust-drift",
    (Severity::High, 102),
    "a file of trust that somebody else changed",
    "It is not as the revision of trust that is in force has it. Where something worse is found in it, only that is said.",
    "See what: podsecctl trust diff; write podsec's again: podsecctl trust rollback REVISION --overwrite with the current revision",
);

/// Others may write to it.
pub const WRITABLE: Kind = kind(
    "config-writable",
    (Severity::Critical, 102),
    "configuration of containers that not only root can write to",
    "It, or a directory on the way to it, belongs to somebody else than root, or its mode lets a group or everybody write.",
    "chown root:root and chmod go-w what the finding names; see what was changed: podsecctl trust diff",
);

/// A process that asks another policy.
pub const BYPASSED: Kind = kind(
    "policy-bypassed",
    (Severity::Critical, 103),
    "a running program that asks no policy, or another",
    "A podman, skopeo or buildah of an image user runs with --signature-policy, --policy or --insecure-policy, or with \
        CONTAINERS_REGISTRIES_CONF in its environment.",
    "Talk to him, and look at his images: podsecctl check run images; podsecctl user lock NAME",
);

/// A process with another HOME.
pub const OTHER_HOME: Kind = kind(
    "policy-other-home",
    (Severity::Critical, 103),
    "a running program with another home",
    "A podman, skopeo or buildah of an image user runs with a HOME that is not his in passwd(5): it reads the policy.json that is there.",
    "Talk to him, and look at his images: podsecctl check run images; podsecctl user lock NAME",
);

/// Nobody's record.
pub const UNMANAGED: Kind = kind(
    "image-user-unmanaged",
    (Severity::Warning, 20),
    "an image user whom podsec did not make",
    "He is in the group of image users and has a store, but podsec has no record of him: nobody keeps his guard whole.",
    "Make an account for it: podsecctl user create --category image-user; and take this one out: gpasswd --delete NAME GROUP",
);

/// A record without an account.
pub const GONE: Kind = kind(
    "user-gone",
    (Severity::Warning, 20),
    "a user of podsec's whose account is gone",
    "podsec made him, and there is no account of that name and uid any more: it was removed, or is somebody else's now, by other means \
        than podsec. His keys may still be trusted.",
    "Remove what podsec has of him: podsecctl user delete NAME",
);

/// Not those of his category.
pub const OTHER_GROUPS: Kind = kind(
    "user-groups",
    (Severity::High, 101),
    "a user whose groups are not those of his category",
    "He has lost a group, or has got one that makes him more than podsec made him.",
    "podsecctl user verify NAME; gpasswd --add or --delete NAME GROUP, or make him anew: podsecctl user delete, podsecctl user create",
);

/// Half a creator.
pub const NOT_A_USER: Kind = kind(
    "creator-no-image-user",
    (Severity::Medium, 50),
    "an image creator who is no image user",
    "He is in the group of image creators, who may sign and publish, but not in that of image users.",
    "gpasswd --add NAME GROUP, or take him out of the other: gpasswd --delete NAME GROUP; podsecctl user verify NAME",
);

/// A person of the cluster with images.
pub const CLUSTER_USER: Kind = kind(
    "cluster-user-has-images",
    (Severity::High, 101),
    "a person of the cluster who is an image user",
    "podsec made him for the Kubernetes API alone; in the group of image users he may run containers beside it.",
    "gpasswd --delete NAME GROUP; podsecctl user verify NAME",
);

/// A container escape would be root.
pub const CLUSTER_ADMINISTRATOR: Kind = kind(
    "cluster-user-administers",
    (Severity::Critical, 107),
    "the cluster user is an administrator",
    "All pods run in the namespaces of the cluster user; whoever gets out of one is he, and so an administrator of this host.",
    "gpasswd --delete NAME GROUP, at once; podsecctl audit shows what he did",
);

/// Over.
pub const KEY_EXPIRED: Kind = kind(
    "key-expired",
    (Severity::High, 101),
    "a signing key that has expired",
    "What it signs from now on is refused by those who verify.",
    "Its creator makes a new one: podsecctl key generate; or gives it more time: gpg --quick-set-expire, podsecctl key publish",
);

/// Soon.
pub const KEY_EXPIRING: Kind = kind(
    "key-expiring",
    (Severity::Warning, 10),
    "a signing key that expires soon",
    "What it signs afterwards is refused by those who verify.",
    "Its creator gives it more time: gpg --quick-set-expire, podsecctl key publish; or makes a new one: podsecctl key rotate",
);

/// Over, or unreadable.
pub const CERTIFICATE_EXPIRED: Kind = kind(
    "certificate-expired",
    (Severity::High, 101),
    "a certificate that has expired",
    "Clients of this server refuse it: nothing is pulled, no signature is found. A certificate that cannot be read counts as one, too.",
    "Make a new one: podsecctl service deploy registry, podsecctl service deploy signatures",
);

/// Soon.
pub const CERTIFICATE_EXPIRING: Kind = kind(
    "certificate-expiring",
    (Severity::Warning, 10),
    "a certificate that expires soon",
    "Afterwards clients of this server refuse it: nothing is pulled, no signature is found.",
    "Make a new one: podsecctl service deploy registry, podsecctl service deploy signatures",
);
