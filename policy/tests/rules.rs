//! Holds the table against the interface: a method without a rule, or a rule without a method, fails here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use podsec_policy::operation::Method;
use podsec_policy::rules::{By, RULES, authorize};
use podsec_policy::{Operation, Reason, Role, peer::Roles};
use prost::Message as _;
use std::collections::BTreeSet;

fn methods_of_the_interface() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(podsec_proto::DESCRIPTORS).unwrap();
    let mut methods = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    methods
}

#[test]
fn table_and_interface_are_the_same_list() {
    let rules: BTreeSet<String> = RULES.iter().map(|rule| rule.path.to_owned()).collect();
    assert_eq!(rules.len(), RULES.len(), "a path stands twice in the table");
    assert_eq!(rules, methods_of_the_interface());
    let methods: BTreeSet<String> = RULES.iter().map(|rule| format!("{:?}", rule.method)).collect();
    assert_eq!(methods.len(), RULES.len(), "a method stands twice in the table");
}

#[test]
fn no_message_says_who_the_caller_is() {
    let set = prost_types::FileDescriptorSet::decode(podsec_proto::DESCRIPTORS).unwrap();
    let requests =
        set.file.iter().flat_map(|file| &file.message_type).filter(|m| m.name().ends_with("Request"));
    let mut seen = 0;
    for request in requests {
        seen += 1;
        for field in &request.field {
            let name = field.name();
            assert!(
                !["uid", "user", "caller", "identity", "groups", "pid", "path"].contains(&name),
                "{}: {name}",
                request.name()
            );
        }
    }
    assert!(seen >= 10, "only {seen} requests found");
}

/// The document that a reviewer reads: change it knowingly.
#[test]
fn matrix() {
    let mut text = format!("{:<44}", "operation");
    for role in Role::ALL {
        text += &format!("{:<15}", role.name());
    }
    text += "carried out by\n";
    for rule in RULES {
        text += &format!("{:<44}", rule.path);
        for role in Role::ALL {
            let may = rule.roles.has(role) || rule.roles.has(Role::Anyone);
            text += &format!("{:<15}", if may { "may" } else { "-" });
        }
        text += &match rule.by {
            By::Gate => "gate\n".to_owned(),
            By::Worker([]) => "worker without capabilities\n".to_owned(),
            By::Worker(capabilities) => format!("worker with {capabilities:?}\n"),
        };
    }
    insta::assert_snapshot!(text);
}

#[test]
fn nobody_gets_nothing() {
    assert!(authorize(Roles::NONE, Operation::WhoAmI).is_err());
    let anyone = Roles::NONE.with(Role::Anyone);
    assert!(authorize(anyone, Operation::WhoAmI).is_ok());
    let denied = authorize(anyone, Operation::AuditVerify).unwrap_err();
    assert_eq!((denied.method, denied.reason), (Method::AuditVerify, Reason::NotMember));
    assert_eq!(denied.method.allowed(), "Administrator");
    let cluster = anyone.with(Role::ClusterAdmin).with(Role::ImageUser);
    assert!(authorize(cluster, Operation::AuditVerify).is_err());
    let permit = authorize(cluster, Operation::Inspect).unwrap();
    assert_eq!(permit.roles(), Roles::NONE.with(Role::ClusterAdmin));
}
