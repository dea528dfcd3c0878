//! End-to-end tests on a throwaway host: real namespaces, real accounts, real podsecd. `scenarios` is what people do,
//! `attacks` what others do, `faults` what breaks. Each ends with the oracle.
//!
//! One host for all, one test at a time: they share podsecd, as people do.

#![forbid(unsafe_code)]

mod attacks;
mod checks;
mod crash;
mod documents;
mod faults;
mod foreign;
mod identity;
mod images;
mod keys;
mod load;
mod ports;
mod protocol;
mod records;
mod scenarios;
mod services;
mod session;
mod signatures;
mod storms;
mod trust;
mod users;

use libtest_mimic::{Arguments, Trial};
use podsec_tests::host;
use podsec_tests::oracle::Oracle;
use podsec_tests::role;
use std::process::ExitCode;

/// A test: it may look at the oracle for the audit since its start.
type Test = (&'static str, fn(&mut Oracle));

fn main() -> ExitCode {
    if let Some(code) =
        role::play(&[protocol::ROLES, storms::ROLES, keys::ROLES, services::ROLES, trust::ROLES].concat())
    {
        return code;
    }
    if let Some(code) = host::enter() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = [
        scenarios::TESTS,
        attacks::TESTS,
        crash::TESTS,
        documents::TESTS,
        faults::TESTS,
        foreign::TESTS,
        identity::CALLERS,
        identity::NAMESPACES,
        images::TESTS,
        keys::TESTS,
        load::TESTS,
        ports::TESTS,
        protocol::TESTS,
        records::TESTS,
        services::TESTS,
        signatures::TESTS,
        storms::TESTS,
        users::TESTS,
        &checks::tests(),
        &session::tests(),
        &trust::tests(),
    ]
    .concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            let mut oracle = Oracle::before();
            test(&mut oracle);
            oracle.check();
            Ok(())
        })
    });
    let trials = trials.collect();
    if !arguments.list {
        host::up();
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
