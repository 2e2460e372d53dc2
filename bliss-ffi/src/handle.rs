//! Opening, closing, and the last error.

use core::ffi::c_char;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bliss_core::request::{AttributeId, InputId, MAX_ATTRIBUTES, MAX_INPUTS, Request};
use bliss_core::score::Unscored;
use bliss_store::{Client, ClientOptions};

use crate::boundary::{CallError, SizePrefixed, call, catch, read_sized, slice};
use crate::codes::bliss_result_e::{self, *};
use crate::message::Message;

/// The longest directory name in bytes.
const MAX_PATH_BYTES: usize = 4095;

/// A handle: what one thread needs to look up features and score requests.
pub struct bliss_t {
    pub(crate) owner: Thread,
    /// A panic was caught with this handle.
    pub(crate) is_broken: bool,
    pub(crate) client: Client,
    /// Its values point into the caller's memory; what vouches for them is the contract of `bliss_request_set_text`.
    pub(crate) request: Request<'static>,
    pub(crate) attributes: [Option<AttributeId>; MAX_ATTRIBUTES],
    /// Ids, and whether they are categories.
    pub(crate) inputs: [Option<(InputId, bool)>; MAX_INPUTS],
    /// Why the last call went no further; the text of a reason is made when it is asked for.
    pub(crate) message: Message,
    pub(crate) unscored: Option<Unscored>,
}

/// A running thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    #[inline]
    pub(crate) fn current() -> Self {
        // SAFETY:
        // - has no conditions; it reads a register.
        Self(unsafe { libc::pthread_self() })
    }
}

impl bliss_t {
    /// Remembers why a call went no further.
    pub(crate) fn record(&mut self, error: CallError) {
        self.unscored = None;
        match error {
            CallError::Invalid(_, text) => self.message.set(text),
            CallError::Name(error) => self.message.set(error),
            CallError::Unscored(reason) => self.unscored = Some(reason),
            CallError::Explained(_) => {}
        }
    }

    /// Puts the reason, if that was last, in words.
    fn explain(&mut self) {
        use Unscored::{BadModels, BadSnapshot, NoModels, NoSnapshot};
        let Some(reason) = self.unscored.take() else { return };
        match (reason, self.client.last_error()) {
            (NoSnapshot | NoModels | BadSnapshot | BadModels, Some(why)) => {
                self.message.set(format_args!("{reason}: {why}"));
            }
            _ => self.message.set(reason),
        }
    }
}

/// How a directory is opened. All fields but the size may be 0, which means the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_options_t {
    /// sizeof(bliss_options_t).
    pub size: usize,
    /// Address space in bytes that is reserved for each of the published copies, four in all; default 16 GiB.
    /// No memory is reserved by this. A publication that is larger is mapped anew when it grows.
    pub max_size_bytes: u64,
}

// SAFETY:
// - `repr(C)`, begins with its size, and consists of integers.
unsafe impl SizePrefixed for bliss_options_t {
    const FIRST_VERSION: usize = 16;
    const WRONG: &'static str =
        "the options begin with a size that this library does not know; set it to sizeof(bliss_options_t)";
}

/// Opens the directory that a daemon publishes to, and gives the calling thread a handle on it.
///
/// Succeeds before anything was published, and before the directory exists: requests are unscored until something is.
/// The name is `directory_len` bytes without NUL. `options` may be NULL. The handle goes to `*out`, which becomes NULL
/// where the call fails; then the reason goes to `error` as text that ends in NUL, cut to `error_len` bytes (512 are
/// always enough; `error` may be NULL).
///
/// Any thread; the handle belongs to it. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT,
/// BLISS_ERROR_SIZE, BLISS_ERROR_OPEN or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `directory` points to `directory_len` bytes, `options` is NULL or points to a struct of the size it begins with,
///   `out` to a pointer that may be written, and `error` is NULL or points to `error_len` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_open(
    directory: *const c_char,
    directory_len: usize,
    options: *const bliss_options_t,
    out: *mut *mut bliss_t,
    error: *mut c_char,
    error_len: usize,
) -> bliss_result_e {
    let mut message = Message::new();
    let mut opened = || {
        if out.is_null() {
            message.set("the pointer that the handle is to be written to is NULL");
            return Err(BLISS_ERROR_NULL);
        }
        // SAFETY:
        // - not NULL, and may be written: the caller's contract.
        unsafe { out.write(core::ptr::null_mut()) };
        // SAFETY:
        // - the contract of this function.
        let handle = unsafe { open(directory, directory_len, options, &mut message) }?;
        // SAFETY:
        // - as above.
        unsafe { out.write(Box::into_raw(Box::new(handle))) };
        Ok(())
    };
    let outcome = catch(&mut opened);
    let code = match outcome {
        Some(Ok(())) => BLISS_OK,
        Some(Err(code)) => code,
        None => {
            message.set("a mistake in libblissffi was caught");
            BLISS_ERROR_PANIC
        }
    };
    if code != BLISS_OK {
        // SAFETY:
        // - `error` is NULL or `error_len` bytes may be written to it: the contract of this function.
        unsafe { message.copy_to(error, error_len) };
    }
    code
}

/// Opens the directory; says in `message` what is wrong.
///
/// # Safety
/// - as `bliss_open`.
unsafe fn open(
    directory: *const c_char,
    directory_len: usize,
    options: *const bliss_options_t,
    message: &mut Message,
) -> Result<bliss_t, bliss_result_e> {
    let mut wrong = |error: CallError| match error {
        CallError::Invalid(code, text) => {
            message.set(text);
            code
        }
        CallError::Name(_) | CallError::Unscored(_) | CallError::Explained(_) => BLISS_ERROR_ARGUMENT,
    };
    // SAFETY:
    // - `directory_len` bytes can be read: the caller's contract.
    let directory =
        unsafe { slice(directory.cast::<u8>(), directory_len, MAX_PATH_BYTES) }.map_err(&mut wrong)?;
    if directory.is_empty() || directory.contains(&0) {
        let text = "the name of the directory must be neither empty nor hold a NUL";
        return Err(wrong(CallError::Invalid(BLISS_ERROR_ARGUMENT, text)));
    }
    // SAFETY:
    // - NULL, or points to as many bytes as it says: the caller's contract.
    let options = unsafe { read_sized(options) }.map_err(&mut wrong)?;
    let max_size = options.map(|o| o.max_size_bytes).filter(|bytes| *bytes != 0);
    let client = ClientOptions { max_size }
        .open(std::path::Path::new(OsStr::from_bytes(directory)))
        .map_err(|error| {
            message.set(error);
            BLISS_ERROR_OPEN
        })?;
    Ok(bliss_t {
        owner: Thread::current(),
        is_broken: false,
        client,
        request: Request::new(),
        attributes: [None; MAX_ATTRIBUTES],
        inputs: [None; MAX_INPUTS],
        message: Message::new(),
        unscored: None,
    })
}

/// Closes a handle and frees what belongs to it; pointers that it gave out become invalid. NULL is let pass.
///
/// Any thread, so that a handle can be closed after its thread has ended; no other call with it may be under way or
/// follow. Cannot fail.
///
/// # Safety
/// - `handle` is NULL, or came from `bliss_open` and was not closed since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_close(handle: *mut bliss_t) {
    if !handle.is_null() {
        // SAFETY:
        // - made by `Box::into_raw` in `bliss_open` and not closed since: the caller's contract.
        catch(|| drop(unsafe { Box::from_raw(handle) }));
    }
}

/// Does ahead of time what a request would have to do after a publication: looks whether the files were replaced,
/// maps and checks what is new, and unmaps what is old. To be called between requests, about once a second; scoring
/// works without it, but the first request after a publication then takes longer. A handle that could not count for the
/// daemon's metrics, for instance after a fork, tries again here.
///
/// The handle's thread only. Pointers that earlier calls returned become invalid. Returns BLISS_OK if features and
/// models can be read, else what is the matter (see bliss_result_e).
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_maintain(handle: *mut bliss_t) -> bliss_result_e {
    // SAFETY:
    // - the contract of this function.
    unsafe { call(handle, |handle| handle.client.maintain().map_err(CallError::from)) }
}

/// What the last call with a result other than BLISS_OK was about, in words: copied to `buffer` with a NUL at the
/// end, cut to `buffer_len` bytes (512 are always enough). Returns the length of the whole text without the NUL; 0 if
/// nothing has gone wrong yet, or `handle` is NULL or another thread's. `buffer` may be NULL. For results above 0 it
/// begins with the words of the reason, after which a colon and details may follow.
///
/// The handle's thread only.
///
/// # Safety
/// - `handle` is NULL or open; `buffer` is NULL or points to `buffer_len` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_last_error(
    handle: *mut bliss_t,
    buffer: *mut c_char,
    buffer_len: usize,
) -> usize {
    // SAFETY:
    // - the contract of this function.
    let Some(handle) = (unsafe { owned(handle) }) else { return 0 };
    catch(|| handle.explain());
    // SAFETY:
    // - `buffer` is as `copy_to` asks: the contract of this function.
    unsafe { handle.message.copy_to(buffer, buffer_len) }
}

/// Why this handle does not count what it looks up and scores for the daemon's metrics, in words: copied to `buffer` with
/// a NUL at the end, cut to `buffer_len` bytes (512 are always enough). Returns the length of the whole text without the
/// NUL; 0 if it counts, or `handle` is NULL or another thread's. `buffer` may be NULL. That a handle does not count never
/// keeps it from answering; it tries again at each bliss_maintain.
///
/// The handle's thread only.
///
/// # Safety
/// - `handle` is NULL or open; `buffer` is NULL or points to `buffer_len` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_metrics_error(
    handle: *mut bliss_t,
    buffer: *mut c_char,
    buffer_len: usize,
) -> usize {
    // SAFETY:
    // - the contract of this function.
    let Some(handle) = (unsafe { owned(handle) }) else { return 0 };
    let mut message = Message::new();
    catch(|| {
        if let Some(why) = handle.client.metrics_error() {
            message.set(why);
        }
    });
    // SAFETY:
    // - `buffer` is as `copy_to` asks: the contract of this function.
    unsafe { message.copy_to(buffer, buffer_len) }
}

/// The handle, if this thread may use it.
///
/// # Safety
/// - `handle` is NULL or open, and no other call uses it during `'a`.
unsafe fn owned<'a>(handle: *mut bliss_t) -> Option<&'a mut bliss_t> {
    if handle.is_null() {
        return None;
    }
    // SAFETY:
    // - `handle` is open: the caller's contract. No reference is made before the thread is known.
    let owner = unsafe { (&raw const (*handle).owner).read() };
    // SAFETY:
    // - `handle` is open and used by this thread only: the caller's contract.
    (owner == Thread::current()).then(|| unsafe { &mut *handle })
}
