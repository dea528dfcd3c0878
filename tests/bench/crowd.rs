//! Many idle connections: what each takes, and whether others notice.

use crate::figure::{Bound, Figure, Samples};
use crate::helper::Helper;
use crate::memory::{gate, kib};
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::v1::WhoAmIRequest;
use podsec_tests::client;
use podsec_tests::people::MALLORY;
use std::time::{Duration, Instant};

/// Of so many users, since each may have only so many connections.
const USERS: u32 = 20;
const EACH: u32 = 25;
/// The first of them; nobody has these uids.
const FIRST_UID: u32 = 20_001;

pub fn run(rounds: usize) -> Vec<Figure> {
    let mut mallory = Prober::start();
    let alone = mallory.p99(rounds);
    let (gate_before, fronts_before) = (gate(), fronts());
    let start = Instant::now();
    let mut holders: Vec<Helper> =
        (0..USERS).map(|user| Helper::start_uid(FIRST_UID + user, "hold", &[EACH.to_string()])).collect();
    for holder in &mut holders {
        assert_eq!(holder.hear(), "held");
    }
    eprintln!("  {} connections after {:.1} s", USERS * EACH, start.elapsed().as_secs_f64());
    let (gate_after, fronts_after) = (gate(), fronts());
    let among = mallory.p99(rounds);
    let count = f64::from(USERS * EACH);
    let figure = |what: &str, unit, value| Figure::new("connections", what, unit, value);
    vec![
        figure("an idle one, PSS of its front", "KiB", (fronts_after - fronts_before) / count),
        figure("an idle one, growth of the gate", "KiB", (gate_after - gate_before) / count),
        figure("gate, RSS with 500", "MiB", gate_after / 1024.0),
        figure("another's WhoAmI p99", "ms", among).against("without them", alone),
        figure("another's WhoAmI p99, added", "ms", among - alone).bound(Bound::AtMost(100.0)),
    ]
}

/// Proportional set size of all fronts, in KiB: pages that they share count once.
fn fronts() -> f64 {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_front = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| path.ends_with("podsec/podsecd-front"))
    };
    pids.filter(is_front).map(|pid| kib(pid, "smaps_rollup", "Pss")).filter(|kib| !kib.is_nan()).sum()
}

/// Another user, who asks who he is, over a new connection each time as podsecctl does.
pub struct Prober(Helper);

impl Prober {
    pub fn start() -> Self {
        Self(Helper::start(MALLORY, "probe", &[]))
    }

    /// How long it takes him, in milliseconds.
    pub fn p99(&mut self, rounds: usize) -> f64 {
        let mut samples = Samples::new();
        for _ in 0..rounds {
            std::thread::sleep(Duration::from_millis(10));
            let answer = self.0.ask("");
            samples.push_time(Duration::from_nanos(answer.parse().unwrap_or_else(|_| panic!("{answer}"))));
        }
        let [low, middle, high] = [0.5, 0.9, 0.99].map(|share| samples.quantile(share));
        eprintln!("  WhoAmI over a new connection: p50 {low:.2} p90 {middle:.2} p99 {high:.2} ms");
        high
    }
}

/// The prober's process.
pub fn probe() {
    client::block_on(async {
        for _ in std::io::stdin().lines() {
            let start = Instant::now();
            match who_am_i().await {
                Ok(_) => println!("{}", start.elapsed().as_nanos()),
                Err(error) => println!("WhoAmI: {error}"),
            }
        }
    });
}

/// Asks over a new connection, which it leaves open as long as the caller keeps the result.
pub async fn who_am_i() -> Result<IdentityServiceClient<tonic::transport::Channel>, String> {
    let channel = client::connect().await.map_err(|error| error.to_string())?;
    let mut service = IdentityServiceClient::new(channel);
    service.who_am_i(WhoAmIRequest {}).await.map_err(|status| status.to_string())?;
    Ok(service)
}

/// Holds so many connections open: one question each, then nothing but HTTP/2's pings.
pub fn hold(count: usize) {
    client::block_on(async {
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(who_am_i().await.expect("WhoAmI"));
        }
        println!("held");
        let end = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
        let _ = end.await;
    });
}
