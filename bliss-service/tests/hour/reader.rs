//! Workers: what they look up and score is never torn, never falls, and never ends.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bliss_core::request::{AttributeId, Request};
use bliss_core::score::Status;
use bliss_service::access_log::windows::WINDOWS;
use bliss_service::demo::traffic::{self, Chance};
use bliss_store::Client;

use super::world::{BEAT, World, now_seconds};

const DIMENSIONS: [&str; 4] = ["ip", "subnet", "user_agent", "ip_user_agent"];

/// A worker.
pub(crate) struct Reader {
    pub(crate) client: Client,
    pub(crate) ip: AttributeId,
    pub(crate) user_agent: AttributeId,
    /// For each dimension and window, where `requests` is in the vector; unknown before the first lookup.
    pub(crate) columns: Option<[[usize; 3]; 4]>,
    pub(crate) maintained: Instant,
}

impl Reader {
    pub(crate) fn open(world: &World) -> Result<Self, mmap_sync::Error> {
        let mut client = Client::open(world.published())?;
        client.names().http().unwrap();
        let ip = client.names().attribute("ip").unwrap();
        let user_agent = client.names().attribute("user_agent").unwrap();
        Ok(Self { client, ip, user_agent, columns: None, maintained: Instant::now() })
    }

    pub(crate) fn maintain(&mut self) {
        if self.maintained.elapsed() > Duration::from_millis(500) {
            let _ = self.client.maintain();
            self.maintained = Instant::now();
        }
    }

    /// The requests of a client per dimension and window, and each dimension's status.
    pub(crate) fn look_up(
        &mut self,
        ip: &str,
        user_agent: &str,
    ) -> Result<([[f32; 3]; 4], [Status; 4]), String> {
        let mut request = Request::new();
        request.set_attribute(self.ip, ip.into());
        request.set_attribute(self.user_agent, user_agent.into());
        let (values, statuses) =
            self.client.look_up(&request, now_seconds()).map_err(|reason| reason.to_string())?;
        let (values, statuses) = (values.to_vec(), <[Status; 4]>::try_from(&statuses[..4]).unwrap());
        let client = &self.client;
        let columns = self.columns.get_or_insert_with(|| {
            let dimensions = client.scorer().dimensions();
            let find = |dimension: &str, feature: &str| {
                (0..values.len())
                    .find(|at| dimensions.feature_name(*at) == Some((dimension, feature)))
                    .unwrap()
            };
            DIMENSIONS.map(|dimension| {
                [0, 1, 2].map(|at| find(dimension, &format!("requests_{}", WINDOWS[at].name)))
            })
        });
        Ok((columns.map(|windows| windows.map(|at| values[at])), statuses))
    }

    /// `ip.requests_1h`; 0 of an address without a row.
    pub(crate) fn requests_1h(&mut self, ip: &str) -> Result<u32, String> {
        let (requests, statuses) = self.look_up(ip, "")?;
        Ok(if statuses[0] == Status::Fresh { requests[0][2] as u32 } else { 0 })
    }
}

/// Looks up and scores without pause. A torn row, a count that falls, or a request without a score is a failure; the last not
/// while published files are missing.
pub(crate) fn read_on(world: &World, mut reader: Reader, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut highest, mut generation) = (0.0, None);
    let (mut forgotten, mut removed) = (0, 0);
    let addresses: Vec<_> = traffic::requests(seed).into_iter().take(2000).collect();
    while !world.is_over() {
        reader.maintain();
        let (requests, statuses) = match reader.look_up(BEAT.0, BEAT.1) {
            Ok(found) => found,
            Err(reason) => {
                world.unanswered(&reason);
                continue;
            }
        };
        world.looked_up.fetch_add(1, Ordering::Relaxed);
        assert_eq!(statuses, [Status::Fresh; 4], "{requests:?}");
        assert!(requests.iter().all(|dimension| *dimension == requests[0]), "torn: {requests:?}");
        // Before an hour is over, no request leaves its window.
        if requests[0][2] < highest && world.started.elapsed() < Duration::from_secs(55 * 60) {
            assert!(
                forgotten < world.forgotten.load(Ordering::SeqCst),
                "{highest} requests became {}",
                requests[0][2]
            );
            forgotten += 1;
        }
        highest = requests[0][2];
        let read = reader.client.features_generation();
        if read < generation {
            assert!(
                removed < world.removed.load(Ordering::SeqCst),
                "generation {generation:?} became {read:?}"
            );
            removed += 1;
        }
        generation = read;

        let someone = &addresses[chance.below(addresses.len())];
        let mut request = Request::new();
        request.set_attribute(reader.ip, someone.ip.as_str().into());
        request.set_attribute(reader.user_agent, someone.user_agent.into());
        match reader.client.score(&request, "", now_seconds()).outcome {
            Ok(scored) => {
                assert!((1..=99).contains(&scored.score), "{}", scored.score);
                world.scored.fetch_add(1, Ordering::Relaxed);
            }
            Err(reason) => world.unanswered(&(reason, reader.client.last_error())),
        }
        // A worker is idle most of the time; this leaves the daemon its share of two cores.
        sleep(Duration::from_micros(500));
    }
}

/// Workers that start at any moment, also in the middle of a disturbance. They may find nothing yet, and never a torn row.
pub(crate) fn open_again_and_again(world: &World) {
    while !world.is_over() {
        let mut reader = match Reader::open(world) {
            Ok(reader) => reader,
            Err(reason) => {
                world.unanswered(&reason);
                continue;
            }
        };
        for _ in 0..20 {
            if let Ok((requests, _)) = reader.look_up(BEAT.0, BEAT.1) {
                assert!(requests.iter().all(|dimension| *dimension == requests[0]), "torn: {requests:?}");
            }
            sleep(Duration::from_millis(10));
        }
    }
}
