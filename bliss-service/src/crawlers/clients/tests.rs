use std::net::Ipv6Addr;

use super::*;
use proptest::prelude::*;

const HOLD: Duration = Duration::from_millis(100);

fn options(max_clients: usize) -> CrawlerOptions {
    CrawlerOptions { min_ttl: secs(10), max_ttl: secs(100), max_clients, ..CrawlerOptions::default() }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Each of a network of its own.
fn id(last: u8) -> ClientId {
    ClientId { ip: [192, 0, last, 1].into(), crawler: 0 }
}

/// Of three networks.
fn near(last: u8) -> ClientId {
    ClientId { ip: [192, 0, last % 3, last].into(), crawler: 0 }
}

fn unknown() -> Verdict {
    Verdict::Unknown("no answer".into())
}

fn states(news: News) -> Vec<(ClientId, CrawlerState)> {
    let mut states: Vec<_> = news.rows.iter().map(|row| (row.id, row.state)).collect();
    states.sort_by_key(|(id, _)| *id);
    states
}

#[test]
fn a_first_claim_is_published_and_then_what_came_of_it() {
    let mut clients = Clients::new(&options(10), HOLD);
    assert_eq!(clients.claim(id(1), secs(1)), 0);
    assert_eq!(clients.next(secs(1)), Some(id(1)));
    assert_eq!(clients.next(secs(1)), None, "it is asked about once");
    assert_eq!(clients.news(secs(1)), News::default(), "held back for a moment");
    assert_eq!(clients.wakes_at(true), Some(secs(1) + HOLD));
    assert_eq!(clients.wakes_at(false), None, "what is held back waits for nothing else");
    assert_eq!(states(clients.news(secs(1) + HOLD)), [(id(1), CrawlerState::Claimed)]);
    clients.conclude(id(1), &Verdict::Fake(secs(50)), secs(2));
    assert_eq!(states(clients.news(secs(2))), [(id(1), CrawlerState::Fake)]);
    assert_eq!(clients.counts(), Counts { fake: 1, ..Counts::default() });
    // An answer that comes in time is all that is published.
    clients.claim(id(2), secs(3));
    clients.next(secs(3)).unwrap();
    clients.conclude(id(2), &Verdict::Verified(secs(50)), secs(3));
    assert_eq!(states(clients.news(secs(3))), [(id(2), CrawlerState::Verified)]);
    assert_eq!(clients.news(secs(4)), News::default());
}

#[test]
fn an_answer_counts_for_as_long_as_it_says_within_limits_and_only_those_who_come_are_asked_about() {
    let mut clients = Clients::new(&options(10), HOLD);
    for (last, ttl, from) in [(1, 1, 10), (2, 50, 50), (3, 100_000, 100)] {
        clients.claim(id(last), secs(0));
        assert_eq!(clients.next(secs(0)), Some(id(last)));
        clients.conclude(id(last), &Verdict::Verified(secs(ttl)), secs(0));
        clients.claim(id(last), secs(from - 1));
        assert_eq!(clients.next(secs(from - 1)), None, "{last}");
        assert_eq!(clients.next(secs(from)), Some(id(last)), "{last}");
        clients.conclude(id(last), &Verdict::Verified(secs(ttl)), secs(0));
    }
    // They do not come back.
    let mut now = secs(0);
    while clients.next(now).is_none() && now < secs(200) {
        now += secs(1);
    }
    assert_eq!((now, clients.len()), (secs(200), 0), "nobody was asked about, and all are forgotten");
    // One comes back while its answer still stands, though it does not count any more.
    clients.claim(id(1), now);
    clients.next(now).unwrap();
    clients.conclude(id(1), &Verdict::Fake(secs(10)), now);
    assert_eq!(clients.next(now + secs(60)), None);
    clients.claim(id(1), now + secs(61));
    assert_eq!(clients.next(now + secs(61)), Some(id(1)));
}

#[test]
fn p8_a_failure_of_dns_takes_no_state_away_before_its_limit_and_makes_no_fake() {
    let mut clients = Clients::new(&options(10), HOLD);
    clients.claim(id(1), secs(0));
    clients.next(secs(0)).unwrap();
    clients.conclude(id(1), &unknown(), secs(0));
    assert_eq!(clients.counts().claimed, 1);
    // It is asked about again by itself, with waits that double.
    let mut asked = Vec::new();
    for now in 0..100 {
        if clients.next(secs(now)).is_some() {
            asked.push(now);
            clients.conclude(id(1), &unknown(), secs(now));
        }
    }
    assert_eq!(asked, [1, 3, 7, 15, 31, 63]);
    assert_eq!(clients.counts(), Counts { claimed: 1, ..Counts::default() });

    clients.claim(id(1), secs(127));
    clients.next(secs(127)).unwrap();
    clients.conclude(id(1), &Verdict::Verified(secs(10)), secs(127));
    let mut ended = None;
    for now in 128..400 {
        clients.claim(id(1), secs(now));
        if clients.next(secs(now)).is_some() {
            clients.conclude(id(1), &unknown(), secs(now));
        }
        if clients.counts().verified == 0 {
            ended = ended.or(Some(now));
        }
        assert_eq!(clients.counts().fake, 0);
    }
    let ended = ended.unwrap();
    assert!(
        (127 + 200..127 + 200 + 200).contains(&ended),
        "two of max_ttl, and then with the next attempt: {ended}"
    );
}

#[test]
fn p9_clients_are_bounded_and_verified_ones_are_dropped_last() {
    let mut clients = Clients::new(&options(3), HOLD);
    clients.claim(id(1), secs(0));
    clients.next(secs(0)).unwrap();
    clients.conclude(id(1), &Verdict::Verified(secs(100)), secs(0));
    clients.news(secs(0));
    let mut dropped = 0;
    for last in 2..=250 {
        dropped += clients.claim(id(last), secs(1));
        assert!(clients.len() <= 3 && clients.new.ids().len() <= 3 && clients.held.len() <= 3);
        assert_eq!(clients.counts().verified, 1);
    }
    assert_eq!(dropped, 247);
    assert_eq!(clients.next(secs(1)), Some(id(249)), "those that were dropped are not asked about");
    // Nothing but verified ones: the one that claimed longest ago goes, and its row.
    for last in [249, 250] {
        clients.conclude(id(last), &Verdict::Verified(secs(100)), secs(1));
    }
    clients.claim(id(1), secs(2));
    clients.news(secs(2));
    assert_eq!(clients.claim(id(7), secs(3)), 1);
    assert_eq!(clients.news(secs(3)).gone, [id(249)]);
}

/// The same ones over and over, each dropped for the next.
#[test]
fn p9_clients_that_come_and_go_leave_nothing_behind_in_any_line() {
    let mut clients = Clients::new(&options(3), HOLD);
    for turn in 0..4000u32 {
        clients.claim(id((turn % 4) as u8), secs(1));
        assert!(clients.new.ids().len() <= 3 && clients.held.len() <= 3, "{turn}");
    }
}

/// DNS says nothing of any of them.
#[test]
fn p9_a_flood_of_one_network_delays_no_other() {
    let concurrency = CrawlerOptions::default().concurrency;
    for flood in ["2001:db8:7::", "::ffff:203.0.113.0"] {
        let flood = u128::from(flood.parse::<Ipv6Addr>().unwrap());
        let of_flood = |host: u32| {
            let ip = IpAddr::V6(Ipv6Addr::from(flood + u128::from(host)));
            ClientId { ip: ip.to_canonical(), crawler: 0 }
        };
        let mut clients = Clients::new(&options(10_000), HOLD);
        for host in 0..250 {
            clients.claim(of_flood(host), secs(0));
        }
        assert_eq!(clients.new.ids().len(), line::MOST_WAITING);
        let asked: Vec<_> = (0..concurrency).map_while(|_| clients.next(secs(0))).collect();
        assert_eq!(asked.len(), MOST_ASKED);
        clients.claim(id(1), secs(1));
        assert_eq!(clients.next(secs(1)), Some(id(1)));
        clients.conclude(id(1), &Verdict::Verified(secs(10)), secs(1));
        // Nor when it comes back, in whatever state those of the flood are.
        for now in 2..100 {
            clients.claim(id(1), secs(now));
            let asked: Vec<_> = (0..concurrency).map_while(|_| clients.next(secs(now))).collect();
            assert_eq!(asked.contains(&id(1)), now >= 11 && (now - 11) % 10 == 0, "{now}");
            for id in asked {
                let is_flood = id.ip != self::id(1).ip;
                let verdict = if is_flood { unknown() } else { Verdict::Verified(secs(10)) };
                clients.conclude(id, &verdict, secs(now));
            }
        }
        // All of the flood had their turn, or wait for it.
        assert_eq!(clients.len(), 251);
    }
}

#[test]
fn new_clients_and_old_ones_do_not_wait_for_each_other() {
    let mut clients = Clients::new(&options(100), HOLD);
    for last in 0..10 {
        clients.claim(id(last), secs(0));
        clients.next(secs(0)).unwrap();
        clients.conclude(id(last), &unknown(), secs(0));
    }
    for last in 10..20 {
        clients.claim(id(last), secs(5));
    }
    let asked: Vec<_> = (0..4).map(|_| clients.next(secs(5)).unwrap()).collect();
    let is_new = |asked: &ClientId| asked.ip >= id(10).ip;
    assert_eq!(asked.iter().filter(|asked| is_new(asked)).count(), 2, "{asked:?}");
}

#[test]
fn what_was_not_published_is_published_the_next_time() {
    let mut clients = Clients::new(&options(1), HOLD);
    clients.claim(id(1), secs(0));
    let news = clients.news(secs(1));
    assert_eq!(news.rows.len(), 1);
    clients.restate(news);
    let news = clients.news(secs(1));
    assert_eq!(news.rows.len(), 1);
    // Dropped while it was under way.
    clients.claim(id(2), secs(1));
    clients.restate(news);
    assert_eq!(clients.news(secs(1)).gone, [id(1)]);
    // All of it, dated by what is known.
    clients.next(secs(1)).unwrap();
    clients.conclude(id(2), &Verdict::Fake(secs(10)), secs(2));
    clients.replace_all();
    let all = clients.news(secs(9));
    assert_eq!(all.rows, [NewRow { id: id(2), state: CrawlerState::Fake, age: secs(7) }]);
    // It fails: the next time it is all of it again.
    assert!(all.is_whole);
    clients.restate(all);
    assert!(clients.news(secs(9)).is_whole && !clients.news(secs(9)).is_whole);
}

/// Nothing can be published, and clients come and go.
#[test]
fn p9_rows_to_remove_are_bounded_and_then_all_rows_are_replaced() {
    let mut clients = Clients::new(&options(3), HOLD);
    for host in 0..200 {
        clients.claim(id(host), secs(host.into()));
        let news = clients.news(secs(host.into()) + HOLD);
        assert!(news.gone.len() <= 6, "{host}: {}", news.gone.len());
        clients.restate(news);
        assert!(clients.gone.len() <= 6, "{host}: {}", clients.gone.len());
    }
    let news = clients.news(secs(300));
    assert_eq!((news.is_whole, news.rows.len(), news.gone.len()), (true, 3, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Claim(u8),
    Ask,
    Answer(usize, u8),
    Wait(u64),
    Publish,
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..30u8).prop_map(Step::Claim),
        4 => Just(Step::Ask),
        4 => (0..4usize, 0..4u8).prop_map(|(at, verdict)| Step::Answer(at, verdict)),
        2 => (1..90u64).prop_map(Step::Wait),
        2 => Just(Step::Publish),
        1 => Just(Step::Fail),
    ]
}

proptest! {
    /// Whatever happens: limits hold, counts are those of the clients, what is published in the end is what is known, and a state is
    /// one that an answer gave.
    #[test]
    fn p9_whatever_comes_limits_hold_and_what_is_published_is_what_is_known(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut clients = Clients::new(&options(5), HOLD);
        let mut published = HashMap::new();
        let take = |published: &mut HashMap<ClientId, CrawlerState>, News { rows, gone, is_whole }: News| {
            published.retain(|id, _| !is_whole && !gone.contains(id));
            published.extend(rows.iter().map(|row| (row.id, row.state)));
        };
        let mut asking: Vec<ClientId> = Vec::new();
        let mut answers: HashMap<ClientId, HashSet<u8>> = HashMap::new();
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::Claim(last) => {
                    clients.claim(near(last), now);
                }
                Step::Ask => asking.extend(clients.next(now)),
                Step::Answer(at, verdict) if at < asking.len() => {
                    let id = asking.remove(at);
                    answers.entry(id).or_default().insert(verdict);
                    let verdict = match verdict {
                        0 => Verdict::Verified(secs(20)),
                        1 => Verdict::Fake(secs(20)),
                        2 => unknown(),
                        _ => Verdict::Untold,
                    };
                    clients.conclude(id, &verdict, now);
                }
                Step::Wait(seconds) => now += secs(seconds),
                Step::Publish => take(&mut published, clients.news(now)),
                Step::Fail => {
                    let news = clients.news(now);
                    clients.restate(news);
                }
                Step::Answer(..) => {}
            }
            prop_assert!(clients.len() <= 5);
            prop_assert_eq!(clients.by_claim.len(), clients.len());
            let of = |state| clients.clients.values().filter(|client| client.state == state).count();
            let counted = Counts {
                claimed: of(CrawlerState::Claimed),
                verified: of(CrawlerState::Verified),
                fake: of(CrawlerState::Fake),
            };
            prop_assert_eq!(clients.counts(), counted);
            let of_network = asking.iter().fold(HashMap::new(), |mut counts, id| {
                *counts.entry(Network::of(*id)).or_insert(0) += 1;
                counts
            });
            prop_assert!(of_network.values().all(|asked| *asked <= MOST_ASKED));
            prop_assert_eq!(&clients.asked, &of_network);
            let in_line = clients.clients.values().filter(|client| client.in_line.is_some()).count();
            prop_assert_eq!(clients.new.ids().len() + clients.again.ids().len(), in_line);
            let is_due = clients.clients.values().filter(|client| client.due.is_some()).count();
            prop_assert_eq!(clients.due.len(), is_due);
            prop_assert!(clients.held.len() <= clients.len() && clients.gone.len() <= 10);
            for (id, client) in &clients.clients {
                let gave = |verdict| answers.get(id).is_some_and(|answers| answers.contains(&verdict));
                match client.state {
                    CrawlerState::Verified => prop_assert!(gave(0)),
                    CrawlerState::Fake => prop_assert!(gave(1)),
                    CrawlerState::Claimed | CrawlerState::None => {}
                }
                // Nobody is forgotten: it is in line, looked at later, or asked about.
                let is_somewhere = client.in_line == Some(Kind::New) && clients.new.ids().contains(id)
                    || client.in_line == Some(Kind::Due) && clients.again.ids().contains(id)
                    || client.due.is_some_and(|due| clients.due.contains(&(due, *id)))
                    || asking.contains(id);
                prop_assert!(is_somewhere, "{:?}", client);
            }
        }
        take(&mut published, clients.news(now + HOLD));
        let known: HashMap<_, _> = clients.clients.iter().map(|(id, client)| (*id, client.state)).collect();
        prop_assert_eq!(published, known);
    }
}
