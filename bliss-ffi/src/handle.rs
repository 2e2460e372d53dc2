//! Opening, closing, and the last error.

use core::ffi::c_char;
use core::marker::PhantomData;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bliss_core::request::{AttributeId, HttpId, InputId, MAX_ATTRIBUTES, MAX_INPUTS, Request};
use bliss_core::score::Unscored;
use bliss_store::{Client, ClientOptions};

use crate::codes::bliss_result_e::{self, *};
use crate::decide::RequestIdText;
use crate::error::CallError;
use crate::explain::Explanation;
use crate::message::Message;
use crate::pointer::{InSlice, InStruct, Out, OutText, SizePrefixed};

/// The longest directory name in bytes.
const MAX_PATH_BYTES: usize = 4095;

/// A handle: what one thread needs to look up features and score requests.
pub struct bliss_t {
    owner: Thread,
    /// A panic was caught with this handle.
    is_broken: bool,
    pub(crate) client: Client,
    /// Its values point into the caller's memory; what vouches for them is the contract of `bliss_request_set_text`.
    pub(crate) request: Request<'static>,
    pub(crate) attributes: [Option<AttributeId>; MAX_ATTRIBUTES],
    /// Ids, and whether they are categories.
    pub(crate) inputs: [Option<(InputId, bool)>; MAX_INPUTS],
    /// What whole requests set, once it is registered.
    pub(crate) http: Option<HttpId>,
    /// Of the request; empty until it is told, or asked for.
    pub(crate) request_id: RequestIdText,
    /// What explanations work in, once they are registered.
    pub(crate) explanation: Option<Box<Explanation>>,
    /// Why the last call went no further; the text of a reason is made when it is asked for.
    pub(crate) message: Message,
    unscored: Option<Unscored>,
}

/// A running thread.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Thread(libc::pthread_t);

impl Thread {
    #[inline]
    fn current() -> Self {
        // SAFETY:
        // - has no conditions; it reads a register.
        Self(unsafe { libc::pthread_self() })
    }
}

impl bliss_t {
    /// Remembers why a call failed.
    fn record(&mut self, error: CallError) {
        self.unscored = None;
        match error {
            CallError::Invalid(_, text) => self.message.set(text),
            CallError::Name(error) => self.message.set(error),
            CallError::Unscored(reason) => self.unscored = Some(reason),
            CallError::Reported(_) => {}
        }
    }

    /// Puts the reason, if that was last, in words.
    fn explain(&mut self) {
        use Unscored::{BadModels, BadSnapshot, NoModels, NoSnapshot, OldSnapshot};
        let Some(reason) = self.unscored.take() else { return };
        match (reason, self.client.last_error()) {
            (NoSnapshot | NoModels | BadSnapshot | BadModels | OldSnapshot, Some(why)) => {
                self.message.set(format_args!("{reason}: {why}"));
            }
            _ => self.message.set(reason),
        }
    }
}

/// Runs `body`; `None` if it panics.
fn catch<R>(body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => Some(done),
        Err(payload) => {
            // Dropping it would run code that may panic in turn.
            core::mem::forget(payload);
            None
        }
    }
}

/// The handle that C passes.
pub(crate) struct HandleArg<'a> {
    pointer: *mut bliss_t,
    lifetime: PhantomData<&'a mut bliss_t>,
}

impl<'a> HandleArg<'a> {
    /// # Safety
    /// - `pointer` is NULL, or open during `'a`.
    /// - This thread makes no other call with it during `'a`.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut bliss_t) -> Self {
        Self { pointer, lifetime: PhantomData }
    }

    /// The handle, if this thread may use it.
    #[inline]
    fn get(self) -> Result<&'a mut bliss_t, bliss_result_e> {
        if self.pointer.is_null() {
            return Err(BLISS_ERROR_NULL);
        }
        // SAFETY:
        // - not NULL, so it is open: contract of `new`.
        // - it makes no reference to what another thread may be using, and the owner is never written after opening.
        let owner = unsafe { (&raw const (*self.pointer).owner).read() };
        if owner != Thread::current() {
            return Err(BLISS_ERROR_THREAD);
        }
        // SAFETY:
        // - it is open during `'a`: contract of `new`.
        // - other threads are refused above, and this one makes no other call with it: contract of `new`.
        Ok(unsafe { &mut *self.pointer })
    }

    /// Runs `body` with the handle, stops a panic, and remembers what went wrong.
    #[inline]
    pub(crate) fn enter<R>(
        self,
        body: impl FnOnce(&mut bliss_t) -> Result<R, CallError>,
    ) -> Result<R, bliss_result_e> {
        let handle = self.get()?;
        if handle.is_broken {
            return Err(BLISS_ERROR_PANIC);
        }
        match catch(|| body(handle)) {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => {
                handle.record(error);
                Err(error.code())
            }
            None => {
                // What was under way may be half done, so the handle is of no more use.
                handle.is_broken = true;
                handle.message.set("a bug in libblissffi was caught; close this handle and open another one");
                Err(BLISS_ERROR_PANIC)
            }
        }
    }

    /// [`enter`](Self::enter) where only the number matters.
    #[inline]
    pub(crate) fn call(self, body: impl FnOnce(&mut bliss_t) -> Result<(), CallError>) -> bliss_result_e {
        match self.enter(body) {
            Ok(()) => BLISS_OK,
            Err(code) => code,
        }
    }

    /// [`enter`](Self::enter) for counts: 0 where it fails.
    #[inline]
    pub(crate) fn count(self, body: impl FnOnce(&mut bliss_t) -> usize) -> usize {
        self.enter(|handle| Ok(body(handle))).unwrap_or(0)
    }
}

/// How a directory is opened. All fields but the size may be 0, which means the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_options_t {
    /// sizeof(bliss_options_t).
    pub size: usize,
    /// Address space in bytes that is reserved for each of the published copies, six in all; default 16 GiB.
    /// No memory is reserved by this. A larger publication is remapped when it grows.
    pub max_size_bytes: u64,
}

// SAFETY:
// - `repr(C)`, begins with its size, and consists of integers.
unsafe impl SizePrefixed for bliss_options_t {
    const FIRST_VERSION: usize = 16;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the options begin with a size that this library does not know; set it to sizeof(bliss_options_t)",
    );
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
    // SAFETY:
    // - `directory` points to `directory_len` bytes, which stay during this call: the contract of this function.
    // - `options` is NULL or points to a struct of the size it begins with: likewise.
    // - `out` is NULL or may be written: likewise.
    // - `error` is NULL, or `error_len` bytes can be written that nothing else uses during this call: likewise.
    let (directory, options, mut out, error) = unsafe {
        (
            InSlice::new(directory.cast(), directory_len),
            InStruct::new(options),
            Out::new(out),
            OutText::new(error, error_len),
        )
    };
    let mut message = Message::new();
    let opened = catch(|| {
        out.check()?;
        out.write_optional(core::ptr::null_mut());
        let handle = open(directory, options, &mut message)?;
        out.write_optional(Box::into_raw(Box::new(handle)));
        Ok(())
    });
    let code = match opened {
        Some(Ok(())) => return BLISS_OK,
        Some(Err(error)) => {
            if let CallError::Invalid(_, text) = error {
                message.set(text);
            }
            error.code()
        }
        None => {
            message.set("a bug in libblissffi was caught");
            BLISS_ERROR_PANIC
        }
    };
    message.copy_to(error);
    code
}

/// Opens the directory.
fn open(
    directory: InSlice<'_, u8>,
    options: InStruct<'_, bliss_options_t>,
    message: &mut Message,
) -> Result<bliss_t, CallError> {
    let directory = directory.get(MAX_PATH_BYTES)?;
    if directory.is_empty() || directory.contains(&0) {
        let text = "the name of the directory must not be empty or contain a NUL";
        return Err(CallError::Invalid(BLISS_ERROR_ARGUMENT, text));
    }
    let max_size = options.read()?.map(|o| o.max_size_bytes).filter(|bytes| *bytes != 0);
    let client = ClientOptions { max_size }
        .open(std::path::Path::new(OsStr::from_bytes(directory)))
        .map_err(|error| {
            message.set(error);
            CallError::Reported(BLISS_ERROR_OPEN)
        })?;
    Ok(bliss_t {
        owner: Thread::current(),
        is_broken: false,
        client,
        request: Request::new(),
        http: None,
        request_id: RequestIdText::NONE,
        explanation: None,
        attributes: [None; MAX_ATTRIBUTES],
        inputs: [None; MAX_INPUTS],
        message: Message::new(),
        unscored: None,
    })
}

/// Closes a handle and frees what belongs to it; pointers that it returned become invalid. NULL is allowed.
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
        // - `bliss_open` made it with `Box::into_raw`, and it was not closed since: the contract of this function.
        // - No other call uses it any more: likewise.
        catch(|| drop(unsafe { Box::from_raw(handle) }));
    }
}

/// Does ahead of time what a request would have to do after a publication: looks whether the files were replaced,
/// maps and checks what is new, and unmaps what is old. To be called between requests, about once a second; scoring
/// works without it, but the first request after a publication then takes longer. A handle that could not count for the
/// daemon's metrics, for instance after a fork, tries again here.
///
/// The handle's thread only. Pointers that earlier calls returned become invalid. Returns BLISS_OK if features and
/// models can be read, else why not (see bliss_result_e).
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_maintain(handle: *mut bliss_t) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.call(|handle| handle.client.maintain().map_err(CallError::from))
}

/// Why the last call with a result other than BLISS_OK failed, in words: copied to `buffer` with a NUL at the
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
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `buffer` is NULL, or `buffer_len` bytes can be written that nothing else uses during this call: likewise.
    let (handle, buffer) = unsafe { (HandleArg::new(handle), OutText::new(buffer, buffer_len)) };
    let Ok(handle) = handle.get() else { return 0 };
    catch(|| handle.explain());
    handle.message.copy_to(buffer)
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
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `buffer` is NULL, or `buffer_len` bytes can be written that nothing else uses during this call: likewise.
    let (handle, buffer) = unsafe { (HandleArg::new(handle), OutText::new(buffer, buffer_len)) };
    let Ok(handle) = handle.get() else { return 0 };
    let mut message = Message::new();
    catch(|| {
        if let Some(why) = handle.client.metrics_error() {
            message.set(why);
        }
    });
    message.copy_to(buffer)
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks)] // What is passed stands right beside each call.
mod tests {
    use super::*;

    #[test]
    fn f2_a_panic_stops_here() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("while the payload is dropped");
            }
        }
        assert_eq!(catch(|| std::panic::panic_any(Bomb)), None::<()>);
        assert_eq!(catch(|| 1), Some(1));
    }

    #[test]
    fn f2_a_handle_that_saw_a_panic_refuses_everything() {
        let directory = b"/nowhere/that/is";
        let mut handle = core::ptr::null_mut();
        let mut text = [0u8; 100];
        unsafe {
            let name = directory.as_ptr().cast();
            let null = core::ptr::null_mut::<u8>();
            let opened =
                bliss_open(name, directory.len(), null.cast(), &mut handle, text.as_mut_ptr().cast(), 100);
            assert_eq!(opened, BLISS_OK);
            assert_eq!(HandleArg::new(handle).call(|_| panic!("a mistake")), BLISS_ERROR_PANIC);
            assert_eq!(HandleArg::new(handle).call(|_| Ok(())), BLISS_ERROR_PANIC);
            let len = bliss_last_error(handle, text.as_mut_ptr().cast(), 100);
            assert!(core::str::from_utf8(&text[..len]).unwrap().contains("close this handle"));
            bliss_close(handle);
        }
    }
}
