//! P11: a pass holds for who it was given to, until it runs out, and for nobody else.

use proptest::prelude::*;
use siphasher::sip128::SipHasher24;

use super::*;
use crate::key::SECRET_BYTES;

const NOW: u32 = 1_800_000_000;

fn secret(byte: u8) -> KeySecret {
    KeySecret([byte; SECRET_BYTES])
}

/// As the module's documentation reads, each hash of one piece.
fn naive(secret: &KeySecret, address: Address, agent: &[u8], expires: u32) -> String {
    let key = SipHasher24::new_with_key(secret.0[..16].try_into().unwrap());
    let key = key.hash(&[b"bliss challenge pass v1", &secret.0[16..]].concat()).as_bytes();
    let client = match address {
        Address::V4(address) => address.to_be_bytes().to_vec(),
        Address::V6(address) => address.to_be_bytes()[..8].to_vec(),
    };
    let agent = if agent == b"-" { b"" } else { agent };
    let message = [&expires.to_le_bytes(), [client.len() as u8].as_slice(), &client, agent].concat();
    let hash = SipHasher24::new_with_key(&key).hash(&message).as_bytes();
    let tag: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1.{expires}.{tag}")
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![any::<u32>().prop_map(Address::V4), any::<u128>().prop_map(Address::V6)]
}

fn agent() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"Mozilla/5.0".to_vec()),
        Just(b"-".to_vec()),
        Just(b"".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Whether both are one client for a pass.
fn is_same_client(a: Address, b: Address) -> bool {
    match (a, b) {
        (Address::V4(a), Address::V4(b)) => a == b,
        (Address::V6(a), Address::V6(b)) => a >> 64 == b >> 64,
        _ => false,
    }
}

fn is_same_agent(a: &[u8], b: &[u8]) -> bool {
    let is_none = |agent: &[u8]| agent.is_empty() || agent == b"-";
    a == b || is_none(a) && is_none(b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn p11_a_pass_holds_for_who_it_was_given_to_until_it_runs_out(
        address in address(),
        agent in agent(),
        valid in 1..=MAX_VALID_SECONDS,
        now in 10_000_000..u32::MAX - MAX_VALID_SECONDS,
        late in any::<u32>(),
    ) {
        let key = PassKey::of(&secret(7));
        let pass = key.make(Some(address), &agent, valid, now).unwrap();
        prop_assert_eq!(pass.as_str(), naive(&secret(7), address, &agent, now + valid));
        let pass = pass.as_str().as_bytes();
        prop_assert!(key.holds(pass, Some(address), &agent, now));
        prop_assert!(key.holds(pass, Some(address), &agent, now + valid - 1));
        prop_assert!(!key.holds(pass, Some(address), &agent, (now + valid).saturating_add(late)));
        // Clocks that differ by a day, and one that is far back.
        prop_assert!(!key.holds(pass, Some(address), &agent, 0));
        prop_assert_eq!(key.holds(pass, Some(address), &agent, now.saturating_sub(86_401)), valid < MAX_VALID_SECONDS);
    }

    #[test]
    fn p11_a_changed_pass_client_or_secret_never_holds(
        address in address(),
        agent in agent(),
        other_address in address(),
        other_agent in agent(),
        flipped in (0..256_usize, 0..8_u32),
        at in 0..MAX_PASS_BYTES,
        byte in any::<u8>(),
    ) {
        let key = PassKey::of(&secret(7));
        let pass = key.make(Some(address), &agent, 3600, NOW).unwrap();
        let pass = pass.as_str().as_bytes();
        let mut changed = pass.to_vec();
        changed[at] = byte;
        prop_assert_eq!(key.holds(&changed, Some(address), &agent, NOW), changed == pass);
        let [mut longer, mut shorter] = [pass.to_vec(), pass.to_vec()];
        longer.insert(at, byte);
        shorter.remove(at);
        prop_assert!(!key.holds(&longer, Some(address), &agent, NOW));
        prop_assert!(!key.holds(&shorter, Some(address), &agent, NOW));
        prop_assert!(!key.holds(&pass.to_ascii_uppercase(), Some(address), &agent, NOW));
        let is_same = is_same_client(address, other_address);
        prop_assert_eq!(key.holds(pass, Some(other_address), &agent, NOW), is_same);
        prop_assert!(!key.holds(pass, None, &agent, NOW));
        let is_same = is_same_agent(&agent, &other_agent);
        prop_assert_eq!(key.holds(pass, Some(address), &other_agent, NOW), is_same);
        // Whichever bit of the secret is another one.
        let mut other = secret(7);
        other.0[flipped.0 % SECRET_BYTES] ^= 1 << flipped.1;
        prop_assert!(!PassKey::of(&other).holds(pass, Some(address), &agent, NOW));
    }

    #[test]
    fn p11_nothing_that_a_client_makes_up_holds(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        digits in "[0-9]{0,12}",
        tag in "[0-9a-f]{30,34}",
        address in address(),
    ) {
        let key = PassKey::of(&secret(7));
        for made_up in [bytes, format!("v1.{digits}.{tag}").into_bytes(), format!("v1.{}.{tag}", NOW + 60).into_bytes()] {
            prop_assert!(!key.holds(&made_up, Some(address), b"Mozilla/5.0", NOW));
        }
    }
}

#[test]
fn p11_one_number_has_one_pass() {
    // A tag that fits, under a number that is written otherwise.
    let (key, address) = (PassKey::of(&secret(7)), Address::V4(1));
    let pass = naive(&secret(7), address, b"a", NOW + 60);
    assert!(key.holds(pass.as_bytes(), Some(address), b"a", NOW));
    let (number, tag) = pass[3..].split_once('.').unwrap();
    for text in [
        format!("v1.0{number}.{tag}"),
        format!("v1.+{number}.{tag}"),
        format!("v1. {number}.{tag}"),
        format!("v1.{number}{tag}"),
        format!("v1.{number}..{tag}"),
        format!("v2.{number}.{tag}"),
        format!("V1.{number}.{tag}"),
        format!("v1.{}.{tag}", u64::from(NOW + 60) + (1 << 32)),
        format!("v1..{tag}"),
        String::new(),
    ] {
        assert!(!key.holds(text.as_bytes(), Some(address), b"a", NOW), "{text}");
    }
    // One that ends too late for any that is made.
    let late = naive(&secret(7), address, b"a", NOW + LATEST_SECONDS + 1);
    assert!(!key.holds(late.as_bytes(), Some(address), b"a", NOW));
}

#[test]
fn p11_passes_are_not_made_without_an_end_or_a_client() {
    let (key, address) = (PassKey::of(&secret(7)), Some(Address::V4(1)));
    for seconds in [0, MAX_VALID_SECONDS + 1, u32::MAX] {
        assert_eq!(key.make(address, b"a", seconds, NOW), Err(NoPass::Validity(seconds)));
    }
    assert_eq!(key.make(address, b"a", 60, u32::MAX), Err(NoPass::Validity(60)));
    assert_eq!(key.make(None, b"a", 60, NOW), Err(NoPass::NoAddress));
    let longest = key.make(address, b"a", MAX_VALID_SECONDS, NOW).unwrap();
    assert_eq!(longest.as_str().len(), MAX_PASS_BYTES);
    let shortest = key.make(address, b"a", 1, 0).unwrap();
    assert!(shortest.as_str().starts_with("v1.1."));
    assert!(key.holds(shortest.as_str().as_bytes(), address, b"a", 0));
    // What is logged by mistake says nothing.
    assert_eq!(format!("{longest:?} {key:?}"), "PassText(..) PassKey(..)");
}

#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    ip: Option<String>,
    user_agent: Option<String>,
    now: u32,
    pass: Option<String>,
    value: Option<f32>,
}

/// With a secret of the bytes 0, 1, 2, … 191.
#[test]
fn p11_vectors_of_passes() {
    use crate::http::{HttpRequest, RequestValue};
    use crate::request::{Names, Request};
    use crate::schema::Schema;
    use crate::scorer::Scorer;

    let secret = KeySecret(core::array::from_fn(|i| i as u8));
    let change = crate::build::Change { dimensions: vec![] };
    let schema = Schema::default();
    let builder = crate::build::FeaturesBuilder::plan(&schema, &secret, None, &change).unwrap();
    let mut features = rkyv::util::AlignedVec::<64>::new();
    features.resize(builder.bytes() as usize, 0);
    builder.write(&mut features, 1, |jobs| jobs.into_iter().map(crate::build::BuildJob::run).sum()).unwrap();
    let mut names = Names::default();
    let id = names.http().unwrap();
    let (mut scorer, mut unbound) = (Scorer::new(), Scorer::new());
    assert_eq!(
        scorer.pass(Some("192.0.2.1".into()), b"a", 60, 1),
        Err(NoPass::Unscored(Unscored::NoSnapshot))
    );
    scorer.bind_features(&features, &names).unwrap();
    let mut holding = 0;
    for line in include_str!("../../../docs/pass-vectors.jsonl").lines() {
        let Vector { name, ip, user_agent, now, pass, value } = serde_json::from_str(line).unwrap();
        let http = HttpRequest {
            ip: ip.as_deref().map(Value::from),
            user_agent: user_agent.as_deref().map(str::as_bytes),
            pass: pass.as_deref().map(|pass| Pass::Cookie(pass.as_bytes())),
            ..HttpRequest::default()
        };
        let mut request = Request::new();
        request.set_http(&id, http);
        let at = RequestValue::ChallengePassed.index();
        let found = scorer.request_values(&request, now).unwrap()[at];
        assert_eq!(Some(found).filter(|found| !found.is_nan()), value, "{name}");
        // Without a secret none is told apart from another, and none is a pass that does not hold.
        let found = unbound.request_values(&request, now).unwrap()[at];
        let expected = value.filter(|_| pass.as_deref().is_none_or(|pass| pass.is_empty() || pass == "-"));
        assert_eq!(Some(found).filter(|found| !found.is_nan()), expected, "{name}");
        if value == Some(1.0) {
            holding += 1;
            let (expires, _) = parse(pass.as_ref().unwrap().as_bytes()).unwrap();
            let agent = user_agent.as_deref().unwrap_or_default().as_bytes();
            let made = scorer.pass(ip.as_deref().map(Value::from), agent, expires - now, now).unwrap();
            assert_eq!(made.as_str(), pass.unwrap(), "{name}");
        }
    }
    assert!(holding >= 4);
    unbound.forget();
}
