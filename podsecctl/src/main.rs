//! `podsecctl`, and `nsenter_u7s` when it is called by that name.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    podsecctl::main(std::env::args_os().collect()).into()
}
