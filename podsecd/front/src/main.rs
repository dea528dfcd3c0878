//! `podsecd-front UID GID`: started by the gate as root with its channel as descriptor 0. Becomes UID and GID, gives
//! up everything else, and only then waits for the one connection that it will serve.

#![forbid(unsafe_code)]

use podsec_sys::process;
use podsec_wire::Channel;
use podsec_wire::messages::ToFront;
use podsecd_front::gate::Gate;
use podsecd_front::sandbox;
use podsecd_front::serve::{Limits, serve};
use std::error::Error;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut stderr = std::io::stderr();
    let Some((uid, gid)) = identity(std::env::args_os().skip(1)) else {
        let _ =
            writeln!(stderr, "podsecd-front is started by podsecd: podsecd-front UID GID, neither of them 0");
        return ExitCode::from(2);
    };
    match run(uid, gid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr, "podsecd-front: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Exactly two numbers, neither of them root's.
fn identity(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<(u32, u32)> {
    let mut number = || arguments.next()?.to_str()?.parse().ok().filter(|&id| id != 0);
    let (uid, gid) = (number()?, number()?);
    arguments.next().is_none().then_some((uid, gid))
}

fn run(uid: u32, gid: u32) -> Result<(), Box<dyn Error>> {
    process::forbid_inspection()?;
    let channel = Channel::from(process::take_stdin());
    process::close_from(3)?;
    // Its caller's hang-up wakes it in the middle of the caller's own end, which it would delay by its own.
    process::never_preempt()?;
    // Before the filter, which lets no epoll instance be made.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    sandbox::enter(uid, gid)?;

    let Some((ToFront::Serve { reflection }, descriptors)) = channel.receive()? else {
        // Not needed any more, or the gate is gone.
        return Ok(());
    };
    let connection = descriptors.into_iter().next().ok_or("the gate sent no connection")?;
    podsec_sys::socket::set_nonblocking(&connection, true)?;
    runtime.block_on(async {
        let limits = Limits::default();
        let gate = Gate::new(channel, limits.grace)?;
        let stream = tokio::net::UnixStream::from_std(UnixStream::from(connection))?;
        // As a task among the others: tokio looks at epoll once more for every wake-up of the outermost future.
        Ok(tokio::spawn(serve(stream, gate, limits, reflection)).await?)
    })
}

#[cfg(test)]
mod tests {
    use super::identity;

    fn parse(arguments: &[&str]) -> Option<(u32, u32)> {
        identity(arguments.iter().map(Into::into))
    }

    #[test]
    fn takes_two_numbers_and_never_root() {
        assert_eq!(parse(&["990", "991"]), Some((990, 991)));
        for wrong in [
            &[][..],
            &["990"],
            &["990", "991", "992"],
            &["0", "991"],
            &["990", "0"],
            &["-1", "991"],
            &["podsec", "991"],
            &["990", ""],
            &["4294967296", "991"],
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
