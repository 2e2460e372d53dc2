//! Scores requests from standard input through the C functions of libblissffi, and times them.
//!
//! `bliss-scorer DIRECTORY ATTRIBUTE...` speaks in little-endian batches, so that another program can drive it in step
//! with its publications (the demo of `bliss-service` does):
//!
//! ```text
//! in    u32 number of requests; per request: u32 now, then per ATTRIBUTE: u32 length (0xffffffff for absent), text
//! out   per request 36 bytes and more: i32 status (0 scored, else why not, as bliss_score returns), u32 score,
//!       f64 probability of a bot, u64 generation of the features, u32 fetch ns, u32 score ns;
//!       then u32 number of shadow models, and for each 20 bytes: u32 its index in the publication, i32 status,
//!       u32 score, f64 probability of a bot
//! ```
//!
//! Every other request is timed as a fetch alone (`bliss_lookup` before `bliss_score`), the others as a score with its
//! fetch; the figure that was not taken is 0. It ends when its input does.
//!
//! An ATTRIBUTE may be `http.FIELD`, a text of `bliss_http_t`: all of them together are one whole request.

use std::ffi::c_char;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::time::{Duration, Instant};

use blissffi::answer::{bliss_answer_t, bliss_score, bliss_text_t};
use blissffi::codes::bliss_result_e::BLISS_OK;
use blissffi::handle::{bliss_close, bliss_last_error, bliss_maintain, bliss_open, bliss_t};
use blissffi::http::{bliss_http_register, bliss_http_t, bliss_request_http};
use blissffi::lookup::{bliss_features_t, bliss_lookup};
use blissffi::request::{bliss_attribute_register, bliss_request_clear, bliss_request_set_text};
use blissffi::shadow::{bliss_shadow_count, bliss_shadow_get, bliss_shadow_t};

const ABSENT: u32 = u32::MAX;
/// How often what can be done between requests is done.
const MAINTENANCE: Duration = Duration::from_secs(1);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(directory) = arguments.next() else {
        eprintln!("usage: bliss-scorer DIRECTORY ATTRIBUTE...; requests come on standard input");
        std::process::exit(2);
    };
    if let Err(error) = run(&directory, &arguments.collect::<Vec<_>>()) {
        eprintln!("bliss-scorer: {error}");
        std::process::exit(1);
    }
}

/// An open handle, closed when dropped.
struct Handle(*mut bliss_t);

impl Handle {
    fn open(directory: &str) -> io::Result<Self> {
        let mut handle = std::ptr::null_mut();
        let mut message = [0 as c_char; 512];
        // SAFETY:
        // - all pointers are to live values of the given lengths
        let code = unsafe {
            bliss_open(
                directory.as_ptr().cast(),
                directory.len(),
                std::ptr::null(),
                &mut handle,
                message.as_mut_ptr(),
                message.len(),
            )
        };
        if code == BLISS_OK { Ok(Self(handle)) } else { Err(io::Error::other(text(&message))) }
    }

    fn last_error(&self) -> io::Error {
        let mut message = [0 as c_char; 512];
        // SAFETY:
        // - the handle is open, and the buffer is as long as said
        unsafe { bliss_last_error(self.0, message.as_mut_ptr(), message.len()) };
        io::Error::other(text(&message))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY:
        // - opened by `open`, closed nowhere else
        unsafe { bliss_close(self.0) }
    }
}

fn text(message: &[c_char]) -> String {
    let bytes: Vec<u8> = message.iter().take_while(|c| **c != 0).map(|c| c.to_ne_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn run(directory: &str, attributes: &[String]) -> io::Result<()> {
    let handle = Handle::open(directory)?;
    let mut ids = Vec::new();
    let mut http = bliss_http_t::default();
    let has_http = attributes.iter().any(|name| name.starts_with(HTTP_PREFIX));
    // SAFETY:
    // - the handle is open
    if has_http && unsafe { bliss_http_register(handle.0) } != BLISS_OK {
        return Err(handle.last_error());
    }
    for name in attributes {
        if let Some(field) = name.strip_prefix(HTTP_PREFIX) {
            let _ = text_of(&mut http, field)?;
            ids.push(To::Http(field));
            continue;
        }
        // SAFETY:
        // - the handle is open, and the name is as long as said
        let id = unsafe { bliss_attribute_register(handle.0, name.as_ptr().cast(), name.len()) };
        if id < 0 {
            return Err(handle.last_error());
        }
        ids.push(To::Attribute(id));
    }
    let mut input = BufReader::with_capacity(1 << 16, io::stdin().lock());
    let mut output = BufWriter::new(io::stdout().lock());
    let mut values = vec![Vec::new(); ids.len()];
    let mut is_fetch = false;
    let mut maintained = Instant::now();
    while let Some(requests) = read_u32(&mut input)? {
        if maintained.elapsed() >= MAINTENANCE {
            // SAFETY:
            // - the handle is open
            unsafe { bliss_maintain(handle.0) };
            maintained = Instant::now();
        }
        for _ in 0..requests {
            let now = read_u32(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            // SAFETY:
            // - the handle is open
            unsafe { bliss_request_clear(handle.0) };
            http = bliss_http_t::default();
            for (to, value) in ids.iter().zip(&mut values) {
                let len = read_u32(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                if len == ABSENT {
                    continue;
                }
                value.clear();
                if input.by_ref().take(u64::from(len)).read_to_end(value)? != len as usize {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let id = match to {
                    To::Attribute(id) => id,
                    To::Http(field) => {
                        // Not NULL if it is empty: that would say that it is not told.
                        let data = value.as_ptr().cast();
                        *text_of(&mut http, field)? = bliss_text_t { data, len: value.len() };
                        continue;
                    }
                };
                // SAFETY:
                // - the handle is open; `value` stays until the next `bliss_request_clear`
                if unsafe { bliss_request_set_text(handle.0, *id, value.as_ptr().cast(), value.len()) }
                    != BLISS_OK
                {
                    return Err(handle.last_error());
                }
            }
            // SAFETY:
            // - the handle is open; each text is NULL or one of `values`, which stay until the next `bliss_request_clear`
            if has_http && unsafe { bliss_request_http(handle.0, &http) } != BLISS_OK {
                return Err(handle.last_error());
            }
            is_fetch = !is_fetch;
            answer(&handle, now, is_fetch, &mut output)?;
        }
        output.flush()?;
    }
    Ok(())
}

/// What the names of a whole request's texts begin with.
const HTTP_PREFIX: &str = "http.";

/// Where a value goes.
enum To<'a> {
    Attribute(i32),
    Http(&'a str),
}

/// The text of a whole request that has this name.
fn text_of<'h>(http: &'h mut bliss_http_t, field: &str) -> io::Result<&'h mut bliss_text_t> {
    http.text_mut(field).ok_or_else(|| io::Error::other(format!("a request has no text {field:?}")))
}

/// Scores the request at hand and writes the answer.
fn answer(handle: &Handle, now: u32, is_fetch: bool, output: &mut impl Write) -> io::Result<()> {
    let (mut features, mut answer) = (bliss_features_t::default(), bliss_answer_t::default());
    let mut fetch_ns = 0;
    if is_fetch {
        let start = Instant::now();
        // SAFETY:
        // - the handle is open, and the structure says its size
        unsafe { bliss_lookup(handle.0, now, &mut features) };
        fetch_ns = ns(start);
    }
    let start = Instant::now();
    // SAFETY:
    // - the handle is open, the structure says its size, and no route is named
    unsafe { bliss_score(handle.0, std::ptr::null(), 0, now, &mut answer) };
    let score_ns = if is_fetch { 0 } else { ns(start) };
    output.write_all(&answer.result.to_le_bytes())?;
    output.write_all(&answer.score.to_le_bytes())?;
    output.write_all(&answer.bot_probability.to_le_bytes())?;
    output.write_all(&answer.features_generation.to_le_bytes())?;
    output.write_all(&fetch_ns.to_le_bytes())?;
    output.write_all(&score_ns.to_le_bytes())?;
    shadows(handle, output)
}

/// Writes what the shadow models said of the request scored last.
fn shadows(handle: &Handle, output: &mut impl Write) -> io::Result<()> {
    // SAFETY:
    // - the handle is open
    let count = unsafe { bliss_shadow_count(handle.0) };
    output.write_all(&u32::try_from(count).unwrap_or(0).to_le_bytes())?;
    for index in 0..count {
        let mut shadow = bliss_shadow_t::default();
        // SAFETY:
        // - the handle is open, and the structure says its size
        if unsafe { bliss_shadow_get(handle.0, index, &mut shadow) } != BLISS_OK {
            return Err(handle.last_error());
        }
        output.write_all(&shadow.model_index.to_le_bytes())?;
        output.write_all(&shadow.result.to_le_bytes())?;
        output.write_all(&shadow.score.to_le_bytes())?;
        output.write_all(&shadow.bot_probability.to_le_bytes())?;
    }
    Ok(())
}

/// Nanoseconds since `start`, at least 1, since 0 means that the figure was not taken.
fn ns(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX).max(1)
}

/// The next number; `None` at the end of the input.
fn read_u32(input: &mut impl Read) -> io::Result<Option<u32>> {
    let mut bytes = [0; 4];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
