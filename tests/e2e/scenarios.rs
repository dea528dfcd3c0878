//! What people do with podsec.

use crate::Test;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CLUSTER, MALLORY, ROOT};

pub const TESTS: &[Test] = &[
    ("scenarios::whoami_tells_roles", whoami_tells_roles),
    ("scenarios::enter_is_root_inside", enter_is_root_inside),
    ("scenarios::a_stranger_is_refused", a_stranger_is_refused),
];

fn whoami_tells_roles(_: &mut Oracle) {
    for (user, role) in [(ALICE, "Administrator"), (CLUSTER, "ClusterAdmin"), (ROOT, "Administrator")] {
        let told: serde_json::Value =
            serde_json::from_str(&people::ctl(user, &["--json", "whoami"])).unwrap();
        assert!(told["roles"].as_array().unwrap().iter().any(|given| given == role), "{user}: {told}");
    }
}

fn enter_is_root_inside(oracle: &mut Oracle) {
    for user in [ALICE, CLUSTER, ROOT] {
        assert_eq!(people::enter(user, &["id", "-u"]), "0\n");
        assert!(people::enter(user, &["ip", "-brief", "address"]).contains("tap0"));
    }
    crate::session::expect_entries(oracle, 6);
}

fn a_stranger_is_refused(oracle: &mut Oracle) {
    let (_, told) = people::ctl_fails(MALLORY, &["enter", "--", "true"]);
    assert!(
        told.contains("NamespaceService/Enter") && told.contains("Administrator or ClusterAdmin"),
        "{told}"
    );
    assert_eq!(podsec_tests::oracle::the_denial(oracle)["reason"], "not-member");
}
