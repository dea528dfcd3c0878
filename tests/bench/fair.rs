//! What others notice of a caller who floods, stalls or sends garbage.

use crate::crowd::{Prober, who_am_i};
use crate::figure::{Bound, Figure};
use crate::helper::Helper;
use crate::random::Random;
use podsec_policy::config::MAX_STREAMS;
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::v1::WhoAmIRequest;
use podsec_tests::client::{SOCKET, block_on};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

/// What they do, and who they are; nobody has these uids.
const HOSTILE: [(&str, u32); 3] = [("flood", 20_101), ("stall", 20_102), ("garbage", 20_103)];

/// The opening of HTTP/2 (RFC 9113 §3.4) with an empty SETTINGS frame (§6.5).
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A HEADERS frame (§6.2) of 100 bytes, of which none follows.
const HALF_A_REQUEST: &[u8] = b"\0\0\x64\x01\x04\0\0\0\x01";

pub fn run(rounds: usize) -> Vec<Figure> {
    let mut mallory = Prober::start();
    let mut p99 = |what: &str, who: &[(&str, u32)]| {
        eprintln!("  {what}");
        let _hostile: Vec<Helper> =
            who.iter().map(|&(kind, uid)| Helper::start_uid(uid, kind, &[])).collect();
        std::thread::sleep(Duration::from_millis(500));
        mallory.p99(rounds)
    };
    let quiet = p99("quiet", &[]);
    let mut figures = vec![Figure::new("fair", "another's WhoAmI p99, quiet", "ms", quiet)];
    let [flood, stall, garbage] = HOSTILE;
    for (what, who) in
        [("flood", &[flood][..]), ("stall", &[stall]), ("garbage", &[garbage]), ("all three", &HOSTILE)]
    {
        let added = p99(what, who) - quiet;
        figures
            .push(Figure::new("fair", format!("{what}: p99 added"), "ms", added).bound(Bound::AtMost(100.0)));
    }
    figures
}

/// So many at once, each again and again until the process is killed.
fn attack<F: Future<Output = ()> + 'static>(count: usize, once: fn(usize) -> F) {
    block_on(LocalSet::new().run_until(async move {
        for index in 0..count {
            spawn_local(async move {
                loop {
                    once(index).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        std::future::pending::<()>().await;
    }));
}

/// Every stream of most of the connections that he may have, without a pause; and new connections all the time.
pub fn flood() {
    attack(56, |index| async move {
        let Ok(service) = who_am_i().await else { return };
        if index % 8 == 0 {
            return;
        }
        let stream = |mut service: IdentityServiceClient<_>| async move {
            loop {
                let _ = service.who_am_i(WhoAmIRequest {}).await; // refused or not
            }
        };
        let streams: Vec<_> = (0..MAX_STREAMS).map(|_| spawn_local(stream(service.clone()))).collect();
        for stream in streams {
            let _ = stream.await;
        }
    });
}

/// More connections than he may have, on which he stops: before the first byte, in the opening, or in a request.
pub fn stall() {
    attack(80, |index| async move {
        match index % 3 {
            0 => send(&[]).await,
            1 => send(&OPENING[..10]).await,
            _ => send(&[OPENING, HALF_A_REQUEST].concat()).await,
        }
    });
}

/// Bytes that mean nothing, half of them where frames should be.
pub fn garbage() {
    attack(32, |index| async move {
        let mut random = Random::new(std::process::id() as u64 + index as u64);
        let noise = (0..512).flat_map(|_| random.next().to_ne_bytes());
        let opening = if index % 2 == 0 { OPENING } else { &[] };
        send(&opening.iter().copied().chain(noise).collect::<Vec<_>>()).await;
    });
}

/// Sends that over a new connection, and waits until the other side has enough of it.
async fn send(bytes: &[u8]) {
    let Ok(mut connection) = UnixStream::connect(SOCKET).await else { return };
    if connection.write_all(bytes).await.is_ok() {
        let _ = connection.read_to_end(&mut Vec::new()).await;
    }
}
