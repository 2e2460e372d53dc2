//! What is to be done with a request.

use core::ffi::c_char;

use bliss_core::policy::compiled::Action;
use bliss_core::scorer::{Decision, NoPolicy};

use crate::answer::{bliss_answer_t, bliss_text_t, route_name};
use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{InSlice, OutStruct, SizePrefixed};

/// The longest id of a request in bytes.
const MAX_ID_BYTES: usize = 64;

const WRONG_ID: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "the request's id is expected to have 1 to 64 bytes of visible ASCII, and no quote or backslash",
);

/// What the web server is to do with a request.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bliss_action_e {
    /// Serve it.
    BLISS_ACTION_ALLOW = 0,
    /// Serve it, and log that the rule holds.
    BLISS_ACTION_OBSERVE = 1,
    /// Serve it, and tell the application by a header.
    BLISS_ACTION_TAG = 2,
    /// Count it against a limit, and answer with the status beyond that.
    BLISS_ACTION_RATE_LIMIT_KEY = 3,
    /// Hand it to what tells people from programs.
    BLISS_ACTION_CHALLENGE = 4,
    /// Answer with the status.
    BLISS_ACTION_BLOCK = 5,
}

impl From<Action> for bliss_action_e {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::BLISS_ACTION_ALLOW,
            Action::Observe => Self::BLISS_ACTION_OBSERVE,
            Action::Tag => Self::BLISS_ACTION_TAG,
            Action::RateLimitKey => Self::BLISS_ACTION_RATE_LIMIT_KEY,
            Action::Challenge => Self::BLISS_ACTION_CHALLENGE,
            Action::Block => Self::BLISS_ACTION_BLOCK,
        }
    }
}

/// Why no policy was asked, so that everything is allowed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bliss_no_policy_e {
    /// A policy was asked.
    BLISS_POLICY_ASKED = 0,
    /// None was published yet.
    BLISS_POLICY_NOT_PUBLISHED = 1,
    /// What is published is damaged, of another version, or cannot be read.
    BLISS_POLICY_BAD = 2,
    /// The daemon has given no sign of life for longer than its configuration allows (`publish.max_heartbeat_age`).
    BLISS_POLICY_OLD = 3,
}

impl From<Option<NoPolicy>> for bliss_no_policy_e {
    fn from(why: Option<NoPolicy>) -> Self {
        match why {
            None => Self::BLISS_POLICY_ASKED,
            Some(NoPolicy::NotPublished) => Self::BLISS_POLICY_NOT_PUBLISHED,
            Some(NoPolicy::BadPolicy) => Self::BLISS_POLICY_BAD,
            Some(NoPolicy::OldPolicy) => Self::BLISS_POLICY_OLD,
        }
    }
}

/// What is to be done with a request, and which rule says so.
///
/// Its texts may be read until the next call with the handle; `no_policy_reason` as long as the library is loaded. A struct of
/// zeros says that the request is allowed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_decision_t {
    /// sizeof(bliss_decision_t), set before the call.
    pub size: usize,
    /// What to do, as bliss_action_e.
    pub action: u32,
    /// The status to answer with; 0: none.
    pub status: u32,
    /// What the first simulated rule would have done, as bliss_action_e; of no meaning where there is no `simulated_rule`.
    pub simulated_action: u32,
    /// Why no policy was asked, as bliss_no_policy_e.
    pub no_policy: u32,
    /// Generation of the policies that were used; 0 if there are none.
    pub policies_generation: u64,
    /// How many features and values that policies ask for are there neither by the published features nor by what is registered
    /// with this handle, at most 64. No condition on them holds.
    pub unbound_count: u32,
    /// Whether the request brought a pass (`pass` of bliss_http_t) that holds: 1: it did; 0: it brought none, or one that does not
    /// hold; -1: that is not told, or cannot be checked since no features can be read.
    pub challenge_passed: i32,
    /// The rule that says so: its name, "exception", "default", "unscored" or "off". Never empty.
    pub rule: bliss_text_t,
    /// The first simulated rule that would have answered before it.
    pub simulated_rule: bliss_text_t,
    /// The exception that answered.
    pub exception: bliss_text_t,
    /// The policy that was asked.
    pub policy: bliss_text_t,
    /// Name of a header to add: to the request to the application with BLISS_ACTION_TAG, else to the answer.
    pub header_name: bliss_text_t,
    /// Its value.
    pub header_value: bliss_text_t,
    /// Why no policy was asked, in a few words that stay the same between versions.
    pub no_policy_reason: bliss_text_t,
    /// The request's id: what bliss_request_set_id said, or else 32 hexadecimal digits that are made for it.
    pub request_id: bliss_text_t,
}

impl Default for bliss_decision_t {
    fn default() -> Self {
        let none = bliss_text_t::NONE;
        Self {
            size: size_of::<Self>(),
            action: 0,
            status: 0,
            simulated_action: 0,
            no_policy: 0,
            policies_generation: 0,
            unbound_count: 0,
            challenge_passed: 0,
            rule: none,
            simulated_rule: none,
            exception: none,
            policy: none,
            header_name: none,
            header_value: none,
            no_policy_reason: none,
            request_id: none,
        }
    }
}

// SAFETY:
// - `repr(C)`, begins with its size, and zeros are a valid value.
// - It consists of integers, raw pointers and structs of those.
unsafe impl SizePrefixed for bliss_decision_t {
    const FIRST_VERSION: usize = 168;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the decision begins with a size that this library does not know; set it to sizeof(bliss_decision_t)",
    );
}

const _: () =
    assert!(size_of::<bliss_decision_t>() == bliss_decision_t::FIRST_VERSION || size_of::<usize>() != 8);

/// The id of the request that a handle holds.
pub(crate) struct RequestIdText {
    bytes: [u8; MAX_ID_BYTES],
    len: usize,
}

impl RequestIdText {
    pub(crate) const NONE: Self = Self { bytes: [0; MAX_ID_BYTES], len: 0 };

    fn as_str(&self) -> &str {
        // ASCII, whoever made it.
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn set(&mut self, id: &[u8]) -> Result<(), CallError> {
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let bytes = self.bytes.get_mut(..id.len()).filter(|_| !id.is_empty() && id.iter().all(is_plain));
        bytes.ok_or(WRONG_ID)?.copy_from_slice(id);
        self.len = id.len();
        Ok(())
    }

    /// As hexadecimal digits.
    fn set_number(&mut self, id: [u8; 16]) {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        let (pairs, _) = self.bytes.as_chunks_mut::<2>();
        pairs.iter_mut().zip(id).for_each(|(pair, byte)| *pair = [digit(byte >> 4), digit(byte & 15)]);
        self.len = 2 * id.len();
    }
}

/// Says which id the request has in logs, such as nginx's `$request_id`: 1 to 64 bytes of visible ASCII without quotes and
/// backslashes. It is copied, and holds until bliss_request_clear. Without it, bliss_decide makes one.
///
/// The handle's thread only. Allocates nothing. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (the id is as it was
/// then), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `id` points to `id_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_set_id(
    handle: *mut bliss_t,
    id: *const c_char,
    id_len: usize,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `id` is NULL or points to `id_len` bytes, which stay during this call: likewise.
    let (handle, id) = unsafe { (HandleArg::new(handle), InSlice::<u8>::new(id.cast(), id_len)) };
    handle.call(|handle| handle.request_id.set(id.get(isize::MAX as usize)?))
}

/// Scores the request as bliss_score does, and asks the policy of `route` what to do with it; that of the default route if `route`
/// is empty or has none. `now` is the time in seconds since the Unix epoch.
///
/// Conditions on paths, hosts, methods, addresses and user agents need the attributes path, host, method, ip and user_agent, which
/// bliss_http_register registers. A failure of BLISS blocks nobody: without a policy everything is allowed, and `no_policy` says why.
/// If the call itself fails, allow the request.
///
/// A request without an id of its own (bliss_request_set_id) is given one: 32 hexadecimal digits, of which the first 8 are `now`, the
/// next 16 were drawn at random for the handle, and the last 8 count its requests. It is no secret.
///
/// No lock and no allocation; a system call only where files were replaced since the last call. What was published last holds
/// for this very request. The request stays as it is, so that it can be decided for another route.
///
/// The handle's thread only. `answer`, which may be NULL, is filled in as by bliss_score. Returns BLISS_OK, also where there is no score;
/// or BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC, and then neither is to be
/// read.
///
/// # Safety
/// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `route` points
///   to `route_len` bytes; `decision` is NULL, and so may be `answer`, or points to a struct of the size it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_decide(
    handle: *mut bliss_t,
    route: *const c_char,
    route_len: usize,
    now: u32,
    decision: *mut bliss_decision_t,
    answer: *mut bliss_answer_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `route` is NULL or points to `route_len` bytes, which stay during this call: likewise.
    // - `decision` and `answer` are NULL or point to structs of the sizes they begin with: likewise.
    let (handle, route, decision, answer) = unsafe {
        (
            HandleArg::new(handle),
            InSlice::<u8>::new(route.cast(), route_len),
            OutStruct::new(decision),
            OutStruct::new(answer),
        )
    };
    handle.call(|handle| {
        let route = route_name(route)?;
        if handle.request_id.len == 0 {
            let id = handle.client.next_request_id(now);
            handle.request_id.set_number(id);
        }
        let scored = handle.client.decide(&handle.request, route, now).answer;
        decision.write(handle.decision())?;
        if answer.is_null() { Ok(()) } else { answer.write(handle.answer(&scored, route)) }
    })
}

impl bliss_t {
    fn decision(&self) -> bliss_decision_t {
        let decision = self.client.decision();
        let Decision { action, rule, status, header, simulated, exception, policy, no_policy, .. } = decision;
        let header = header.and_then(|header| header.split_once(": "));
        let unbound = self.client.scorer().policies().unbound().len();
        bliss_decision_t {
            action: bliss_action_e::from(action) as u32,
            status: status.into(),
            simulated_action: simulated.map_or(0, |(_, action)| bliss_action_e::from(action) as u32),
            no_policy: bliss_no_policy_e::from(no_policy) as u32,
            policies_generation: self.client.policies_generation().unwrap_or(0),
            unbound_count: u32::try_from(unbound).unwrap_or(u32::MAX),
            challenge_passed: decision.challenge_passed.map_or(-1, i32::from),
            rule: rule.into(),
            simulated_rule: simulated.map(|(rule, _)| rule).into(),
            exception: exception.into(),
            policy: Some(policy).filter(|name| !name.is_empty()).into(),
            header_name: header.map(|(name, _)| name).into(),
            header_value: header.map(|(_, value)| value).into(),
            no_policy_reason: no_policy.map(NoPolicy::as_str).into(),
            request_id: self.request_id.as_str().into(),
            ..bliss_decision_t::default()
        }
    }
}
