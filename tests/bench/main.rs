//! `podsec-bench [NAME] [--json] [--rounds N]`: how fast podsec is and how much it takes, beside what one would use
//! instead, in one run on one throwaway host. docs/benchmarks.md says what each figure means.
//!
//! Ends with 1 when a figure is out of its bound. Figures go to stdout, all else to stderr.

#![forbid(unsafe_code)]

mod audit_log;
mod crowd;
mod enter;
mod fair;
mod figure;
mod helper;
mod memory;
mod policy_check;
mod random;
mod rpc;
mod stream;
mod trust;
mod users;
mod watch;

use clap::Parser;
use figure::Figure;
use podsec_tests::host;
use std::process::{Command, ExitCode};

/// Measures podsec beside what one would use instead.
#[derive(Parser)]
struct Arguments {
    /// One benchmark instead of all
    #[arg(value_parser = names())]
    name: Option<String>,
    /// A line of JSON for each figure instead of a table
    #[arg(long)]
    json: bool,
    /// How often each thing is measured, instead of each benchmark's own number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: Option<u32>,
    /// A part of a benchmark that runs as somebody else
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    helper: Vec<String>,
}

/// A benchmark: from the number of rounds to its figures.
struct Bench {
    name: &'static str,
    rounds: u32,
    run: fn(usize) -> Vec<Figure>,
}

/// On the throwaway host.
const BENCHES: &[Bench] = &[
    Bench { name: "enter", rounds: 250, run: enter::on_throwaway },
    Bench { name: "rpc", rounds: 100, run: rpc::run },
    Bench { name: "stream", rounds: 30, run: stream::run },
    Bench { name: "connections", rounds: 200, run: crowd::run },
    Bench { name: "memory", rounds: 1000, run: memory::run },
    Bench { name: "fair", rounds: 200, run: fair::run },
    Bench { name: "users", rounds: 100, run: users::run },
    Bench { name: "trust", rounds: 100, run: trust::run },
    Bench { name: "audit-log", rounds: 5, run: audit_log::run },
    Bench { name: "policy-check", rounds: 5, run: policy_check::run },
    Bench { name: "watch", rounds: 11, run: watch::run },
];

/// On the systemd host, which has ways in that need systemd.
const SYSTEMD: Bench = Bench { name: "enter-systemd", rounds: 100, run: enter::on_systemd };

fn names() -> Vec<&'static str> {
    BENCHES.iter().chain([&SYSTEMD]).map(|bench| bench.name).collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some((kind, rest)) = arguments.helper.split_first() {
        helper::main(kind, rest);
        return ExitCode::SUCCESS;
    }
    let wanted = |bench: &Bench| arguments.name.as_deref().is_none_or(|name| name == bench.name);
    match std::env::var("PODSEC_HOST").as_deref() {
        Ok("systemd") => {
            host::run(Command::new("/usr/bin/systemctl").args(["start", "podsec-u7s"]));
            measure(&[&SYSTEMD], &arguments)
        }
        Ok(_) => {
            host::up();
            measure(&BENCHES.iter().filter(|bench| wanted(bench)).collect::<Vec<_>>(), &arguments)
        }
        Err(_) => {
            let mut codes = Vec::new();
            if BENCHES.iter().any(wanted) {
                codes.extend(host::enter());
            }
            if wanted(&SYSTEMD) {
                codes.push(boot(&arguments));
            }
            codes.into_iter().find(|&code| code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
        }
    }
}

/// Runs this program on the systemd host.
fn boot(arguments: &Arguments) -> ExitCode {
    let there =
        |program| Command::new("/usr/bin/which").arg(program).output().is_ok_and(|it| it.status.success());
    if let Some(missing) = ["mmdebstrap", "systemd-nspawn"].into_iter().find(|&program| !there(program)) {
        eprintln!("{}: not run: no {missing} here, and it makes the systemd host", SYSTEMD.name);
        return ExitCode::SUCCESS;
    }
    let mut command = host::tool("systemd-host");
    command.args(["--timeout", "900"]).arg(std::env::current_exe().expect("own path")).arg(SYSTEMD.name);
    command.args(arguments.json.then_some("--json"));
    command.args(arguments.rounds.map(|rounds| format!("--rounds={rounds}")));
    let status = command.status().expect("systemd-host");
    ExitCode::from(u8::try_from(status.code().unwrap_or(125)).unwrap_or(125))
}

fn measure(benches: &[&Bench], arguments: &Arguments) -> ExitCode {
    helper::install();
    if !arguments.json {
        println!("{}", figure::header());
    }
    let mut ok = true;
    for bench in benches {
        let rounds = arguments.rounds.unwrap_or(bench.rounds) as usize;
        eprintln!("{}: {rounds} rounds", bench.name);
        if bench.name != SYSTEMD.name {
            // Each begins with a podsecd that has done nothing yet.
            host::stop_daemon("TERM");
            host::start_daemon(None);
        }
        for figure in (bench.run)(rounds) {
            ok &= figure::show(&figure, arguments.json);
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
