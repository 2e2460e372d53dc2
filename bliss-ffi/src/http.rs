//! A whole request in one call.

use core::ffi::c_char;
use std::time::{SystemTime, UNIX_EPOCH};

use bliss_core::attribute::Value;
use bliss_core::http::{HttpRequest, RequestValue};
use bliss_core::pass::Pass;

use crate::answer::bliss_text_t;
use crate::codes::bliss_result_e::{self, *};
use crate::error::CallError;
use crate::handle::{HandleArg, bliss_t};
use crate::pointer::{InSlice, InStruct, MAX_VALUE_BYTES, Out, SizePrefixed};

/// Longest name that is looked at; the names of values are shorter.
const MAX_NAME_BYTES: usize = 128;

const NOT_REGISTERED: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "whole requests are not registered with this handle; call bliss_http_register after opening it",
);
const NO_SUCH_VALUE: CallError =
    CallError::Invalid(BLISS_ERROR_ARGUMENT, "a request has no value of this name by itself");
pub(crate) const NO_REQUEST: CallError = CallError::Invalid(
    BLISS_ERROR_ARGUMENT,
    "no request was handed over since the last bliss_request_clear; call bliss_request_http",
);

/// What a server knows of a request, as nginx's variables have it.
///
/// A text whose data is NULL is not told: models see NaN where they take it, so that one model serves servers that tell much
/// and little. A text with a length of 0, or "-", says that the request has none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bliss_http_t {
    /// sizeof(bliss_http_t); zero the rest before you fill it in.
    pub size: usize,
    /// The client's address as text. Not used where `ip_bytes` is told.
    pub ip: bliss_text_t,
    /// The client's address as 4 or 16 bytes in network order: `$binary_remote_addr`.
    pub ip_bytes: bliss_text_t,
    /// `$request_method`.
    pub method: bliss_text_t,
    /// The request's target with its query: `$request_uri`.
    pub target: bliss_text_t,
    /// `http` or `https`.
    pub scheme: bliss_text_t,
    /// `$host`.
    pub host: bliss_text_t,
    /// `User-Agent`.
    pub user_agent: bliss_text_t,
    /// `Referer`.
    pub referrer: bliss_text_t,
    /// `Accept`.
    pub accept: bliss_text_t,
    /// `Accept-Language`.
    pub accept_language: bliss_text_t,
    /// `Accept-Encoding`.
    pub accept_encoding: bliss_text_t,
    /// `Sec-Fetch-Site`.
    pub sec_fetch_site: bliss_text_t,
    /// `Sec-Fetch-Mode`.
    pub sec_fetch_mode: bliss_text_t,
    /// `Sec-Fetch-Dest`.
    pub sec_fetch_dest: bliss_text_t,
    /// `Sec-CH-UA`.
    pub sec_ch_ua: bliss_text_t,
    /// `Sec-CH-UA-Mobile`.
    pub sec_ch_ua_mobile: bliss_text_t,
    /// `Sec-CH-UA-Platform`.
    pub sec_ch_ua_platform: bliss_text_t,
    /// The pass that the client brings, which bliss_pass made: the value of the cookie that it was set as.
    pub pass: bliss_text_t,
}

impl Default for bliss_http_t {
    /// Nothing is told.
    fn default() -> Self {
        let none = bliss_text_t::NONE;
        Self {
            size: size_of::<Self>(),
            ip: none,
            ip_bytes: none,
            method: none,
            target: none,
            scheme: none,
            host: none,
            user_agent: none,
            referrer: none,
            accept: none,
            accept_language: none,
            accept_encoding: none,
            sec_fetch_site: none,
            sec_fetch_mode: none,
            sec_fetch_dest: none,
            sec_ch_ua: none,
            sec_ch_ua_mobile: none,
            sec_ch_ua_platform: none,
            pass: none,
        }
    }
}

// SAFETY:
// - `repr(C)`, begins with its size, and zeros are a valid value.
// - It consists of integers, raw pointers and structs of those.
unsafe impl SizePrefixed for bliss_http_t {
    const FIRST_VERSION: usize = 280;
    const WRONG_SIZE: CallError = CallError::Invalid(
        BLISS_ERROR_SIZE,
        "the request begins with a size that this library does not know; set it to sizeof(bliss_http_t)",
    );
}

const _: () = assert!(size_of::<bliss_http_t>() == 296 || size_of::<usize>() != 8);

impl bliss_http_t {
    /// The text of this name; `None` where there is none.
    pub fn text_mut(&mut self, name: &str) -> Option<&mut bliss_text_t> {
        Some(match name {
            "ip" => &mut self.ip,
            "ip_bytes" => &mut self.ip_bytes,
            "method" => &mut self.method,
            "target" => &mut self.target,
            "scheme" => &mut self.scheme,
            "host" => &mut self.host,
            "user_agent" => &mut self.user_agent,
            "referrer" => &mut self.referrer,
            "accept" => &mut self.accept,
            "accept_language" => &mut self.accept_language,
            "accept_encoding" => &mut self.accept_encoding,
            "sec_fetch_site" => &mut self.sec_fetch_site,
            "sec_fetch_mode" => &mut self.sec_fetch_mode,
            "sec_fetch_dest" => &mut self.sec_fetch_dest,
            "sec_ch_ua" => &mut self.sec_ch_ua,
            "sec_ch_ua_mobile" => &mut self.sec_ch_ua_mobile,
            "sec_ch_ua_platform" => &mut self.sec_ch_ua_platform,
            "pass" => &mut self.pass,
            _ => return None,
        })
    }

    /// What is told.
    ///
    /// # Safety
    /// - Each text's data is NULL or points to as many bytes as it says, which stay unchanged during `'a`.
    unsafe fn told<'a>(&self) -> Result<HttpRequest<'a>, CallError> {
        let text = |text: bliss_text_t| {
            if text.data.is_null() && text.len == 0 {
                return Ok(None);
            }
            // SAFETY:
            // - the data is NULL or points to `len` bytes, which stay unchanged during `'a`: the caller's contract.
            unsafe { InSlice::new(text.data.cast::<u8>(), text.len) }.get(MAX_VALUE_BYTES).map(Some)
        };
        let (ip, ip_bytes) = (text(self.ip)?.map(Value::Text), text(self.ip_bytes)?.map(Value::Binary));
        Ok(HttpRequest {
            ip: ip_bytes.or(ip),
            method: text(self.method)?,
            target: text(self.target)?,
            scheme: text(self.scheme)?,
            host: text(self.host)?,
            user_agent: text(self.user_agent)?,
            referrer: text(self.referrer)?,
            accept: text(self.accept)?,
            accept_language: text(self.accept_language)?,
            accept_encoding: text(self.accept_encoding)?,
            sec_fetch_site: text(self.sec_fetch_site)?,
            sec_fetch_mode: text(self.sec_fetch_mode)?,
            sec_fetch_dest: text(self.sec_fetch_dest)?,
            sec_ch_ua: text(self.sec_ch_ua)?,
            sec_ch_ua_mobile: text(self.sec_ch_ua_mobile)?,
            sec_ch_ua_platform: text(self.sec_ch_ua_platform)?,
            pass: text(self.pass)?.map(Pass::Cookie),
        })
    }
}

/// Registers what bliss_request_http hands over: the attributes ip, user_agent, browser, crawler, host, path, method, scheme and
/// referrer, and what a request says by itself, which models take as `request.NAME`. To be called once, after the handle was opened.
///
/// The handle's thread only. Allocates. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_FULL, BLISS_ERROR_THREAD or
/// BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_http_register(handle: *mut bliss_t) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    let handle = unsafe { HandleArg::new(handle) };
    handle.call(|handle| {
        handle.http = Some(handle.client.names().http()?);
        Ok(())
    })
}

/// Hands over a whole request: sets the attributes that bliss_http_register names (those that are not told become absent), and
/// what models take of the request itself. Other attributes, numbers and categories stay as they were.
///
/// The struct is copied, the texts are not: as with bliss_request_set_text they are read by each bliss_score and bliss_lookup
/// that follows, and must be there and unchanged then, until bliss_request_clear or the next bliss_request_http.
///
/// The handle's thread only. Allocates nothing. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT (a
/// text of more than 65536 bytes, or bliss_http_register was not called; nothing is set then), BLISS_ERROR_THREAD or
/// BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `http` is NULL or points to as many bytes as it says.
/// - Each text of `http` is NULL or points to as many bytes as it says, which stay as described above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_http(
    handle: *mut bliss_t,
    http: *const bliss_http_t,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `http` is NULL or points to as many bytes as it says: likewise.
    let (handle, http) = unsafe { (HandleArg::new(handle), InStruct::new(http)) };
    handle.call(|handle| {
        let id = handle.http.ok_or(NOT_REGISTERED)?;
        let null = CallError::Invalid(BLISS_ERROR_NULL, "the pointer to the request is NULL");
        let http = http.read()?.ok_or(null)?;
        // SAFETY:
        // - each text is NULL or points to as many bytes as it says: the contract of this function.
        // - They stay, unchanged, as long as the handle may read them: likewise.
        let told = unsafe { http.told() }?;
        handle.request.set_http(&id, told);
        Ok(())
    })
}

/// What the request that was handed over says by itself under a name, with or without `request.` in front: what models see,
/// NaN where it is not told. For tools and tests. The site's hosts are those of the publication that the last lookup, score or
/// bliss_maintain used; whether a pass holds is asked of the system's clock.
///
/// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (no such value, or no request),
/// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
///
/// # Safety
/// - `handle` is NULL or open; `name` points to `name_len` bytes; `value` is NULL or may be written.
/// - The texts of the request that was handed over are still there, as bliss_request_http requires.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bliss_request_value(
    handle: *mut bliss_t,
    name: *const c_char,
    name_len: usize,
    value: *mut f32,
) -> bliss_result_e {
    // SAFETY:
    // - `handle` is NULL, or open and in no other call of this thread: the contract of this function.
    // - `name` is NULL or points to `name_len` bytes, which stay during this call: likewise.
    // - `value` is NULL or may be written: likewise.
    let (handle, name, mut value) =
        unsafe { (HandleArg::new(handle), InSlice::new(name.cast(), name_len), Out::new(value)) };
    handle.call(|handle| {
        value.check()?;
        let name = core::str::from_utf8(name.get(MAX_NAME_BYTES)?).map_err(|_| NO_SUCH_VALUE)?;
        let name = name.strip_prefix(bliss_core::request::INPUT_PREFIX).unwrap_or(name);
        let wanted = RequestValue::of(name).ok_or(NO_SUCH_VALUE)?;
        let values = handle.client.scorer().request_values(&handle.request, now()).ok_or(NO_REQUEST)?;
        value.write_optional(values.get(wanted.index()).copied().unwrap_or(f32::NAN));
        Ok(())
    })
}

/// The system's time in seconds since the Unix epoch.
fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
