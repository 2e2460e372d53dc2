//! Passes for clients that passed a challenge.

use core::ffi::c_char;

use bliss_core::pass::{MAX_PASS_BYTES, NoPass};

use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::http::NO_REQUEST;
use crate::message::Message;
use crate::pointer::OutText;

/// How many bytes are enough for every pass and the NUL behind it.
pub const BLISS_PASS_BYTES: usize = 64;

const _: () = assert!(MAX_PASS_BYTES < BLISS_PASS_BYTES);

const TOO_SMALL: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "the buffer for a pass is expected to have BLISS_PASS_BYTES bytes, and has fewer",
);
const NULL_BUFFER: CallError =
    CallError::Invalid(BLISS_ERROR_NULL, "the pointer to the buffer for a pass is NULL");

/// Makes a pass for the client of the request that bliss_request_http handed over, who passed a challenge: a text of letters, digits
/// and points that is to be set as a cookie, and to be told as `pass` with its next requests. Nothing challenges those but rules with
/// `even_if_passed`. The pass holds from `now` (in seconds since the Unix epoch) for `valid_seconds`, 1 to 2592000, for the request's
/// address (of IPv6 the first 64 bits), its user agent and this installation's secret alone. Whoever calls this vouches for it that the
/// client passed.
///
/// The text goes to `buffer` with a NUL at the end; it takes at most BLISS_PASS_BYTES.
///
/// The handle's thread only. Allocates nothing. Returns BLISS_OK; BLISS_NO_SNAPSHOT or BLISS_BAD_SNAPSHOT (no features can be read,
/// with which the secret comes: serve the request, and let the client pass again later); or BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (no
/// request or no address was told, a time out of range, a buffer of less than BLISS_PASS_BYTES), BLISS_ERROR_THREAD or
/// BLISS_ERROR_PANIC. Unless it is BLISS_OK, the buffer is as it was.
///
/// # Safety
/// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_http requires; `buffer` is NULL or
///   points to `buffer_len` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_pass(
    handle: *mut bliss_t,
    valid_seconds: u32,
    now: u32,
    buffer: *mut c_char,
    buffer_len: usize,
) -> bliss_result_e {
    let is_null = buffer.is_null();
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `buffer` is NULL, or `buffer_len` bytes can be written that nothing else uses during this call: likewise.
    let (handle, buffer) = unsafe { (HandleArg::new(handle), OutText::new(buffer, buffer_len)) };
    handle.call(|handle| {
        if is_null {
            return Err(NULL_BUFFER);
        }
        if buffer_len < BLISS_PASS_BYTES {
            return Err(TOO_SMALL);
        }
        let http = handle.request.http().ok_or(NO_REQUEST)?;
        let agent = http.user_agent.unwrap_or_default();
        match handle.client.pass(http.ip, agent, valid_seconds, now) {
            Ok(pass) => {
                let mut text = Message::new();
                text.set(pass.as_str());
                text.copy_to(buffer);
                Ok(())
            }
            Err(NoPass::Unscored(reason)) => Err(reason.into()),
            Err(wrong) => {
                handle.message.set(wrong);
                Err(CallError::Reported(BLISS_ERROR_ARGUMENT))
            }
        }
    })
}
