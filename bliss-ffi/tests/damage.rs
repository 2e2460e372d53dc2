//! F2, M8: whatever stands in the files, a worker gets a code and goes on.

// Calls as a C program makes them; what they ask for stands right beside them.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::c_char;
use std::fs;
use std::path::Path;

use blissffi::answer::{bliss_answer_t, bliss_score};
use blissffi::codes::bliss_result_e::{self, *};
use blissffi::explain::{
    bliss_contribution_get, bliss_contribution_t, bliss_explain, bliss_explain_register, bliss_explanation_t,
};
use blissffi::handle::{bliss_close, bliss_last_error, bliss_open, bliss_options_t, bliss_t};
use blissffi::lookup::{bliss_features_t, bliss_lookup};
use blissffi::request::{
    bliss_attribute_register, bliss_category_register, bliss_number_register, bliss_request_set_text,
};

#[path = "support/mod.rs"]
mod support;

/// Explains with every model that may be there; what it returned for the route's own.
unsafe fn explain(handle: *mut bliss_t) -> bliss_result_e {
    unsafe {
        assert_eq!(bliss_explain_register(handle), BLISS_OK);
        let mut why: bliss_explanation_t = std::mem::zeroed();
        why.size = size_of::<bliss_explanation_t>();
        let mut part: bliss_contribution_t = std::mem::zeroed();
        part.size = size_of::<bliss_contribution_t>();
        let [_, code] = [c"strict", c""].map(|model| {
            let (name, len) = (model.as_ptr(), model.count_bytes());
            let code = bliss_explain(handle, std::ptr::null(), 0, name, len, support::now(), &mut why);
            if code == BLISS_OK {
                let mut sum = why.expected;
                for at in 0..why.input_count {
                    assert_eq!(bliss_contribution_get(handle, at, &mut part), BLISS_OK);
                    assert!(part.contribution.is_finite() && part.points.is_finite());
                    sum += part.contribution;
                }
                let far = (sum - why.answer).abs() / why.answer.abs().max(1.0);
                // Leaves that were damaged may be so large that they cancel each other out.
                assert!(
                    far < 1e-9 || why.answer.abs() > 1e3 || why.expected.abs() > 1e3,
                    "{sum}, {}",
                    why.answer
                );
            }
            code
        });
        code
    }
}

/// Opens, looks up, scores and explains; what scoring, or else opening, returned, and the error's text.
fn use_it(directory: &Path) -> (bliss_result_e, String) {
    let name = directory.to_str().unwrap();
    let options = bliss_options_t { size: size_of::<bliss_options_t>(), max_size_bytes: 1 << 24 };
    let mut handle: *mut bliss_t = std::ptr::null_mut();
    let mut text = [0 as c_char; 512];
    let said = |text: &[c_char]| {
        String::from_utf8(text.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect()).unwrap()
    };
    unsafe {
        let opened = bliss_open(
            name.as_ptr().cast(),
            name.len(),
            &options,
            &mut handle,
            text.as_mut_ptr(),
            text.len(),
        );
        if opened != BLISS_OK {
            assert!(handle.is_null());
            return (opened, said(&text));
        }
        let ip = bliss_attribute_register(handle, c"ip".as_ptr(), 2);
        bliss_number_register(handle, c"header_count".as_ptr(), 12);
        bliss_category_register(handle, c"country".as_ptr(), 7);
        bliss_request_set_text(handle, ip, c"192.0.2.77".as_ptr(), 10);
        let mut features: bliss_features_t = std::mem::zeroed();
        features.size = size_of::<bliss_features_t>();
        bliss_lookup(handle, support::now(), &mut features);
        let mut answer: bliss_answer_t = std::mem::zeroed();
        answer.size = size_of::<bliss_answer_t>();
        let scored = bliss_score(handle, std::ptr::null(), 0, support::now(), &mut answer);
        assert_eq!(answer.score > 0, scored == BLISS_OK);
        let explained = explain(handle);
        assert_ne!(explained, BLISS_ERROR_PANIC);
        assert!(explained != BLISS_OK || scored == BLISS_OK, "{scored:?} and {explained:?}");
        // So that the text is that of the score.
        let scored = bliss_score(handle, std::ptr::null(), 0, support::now(), &mut answer);
        bliss_last_error(handle, text.as_mut_ptr(), text.len());
        bliss_close(handle);
        (scored, said(&text))
    }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

#[test]
fn f2_damaged_files_are_no_more_than_unscored() {
    let mut site = support::Site::published();
    site.stop_publisher();
    // One slot for counters, so that copies are small.
    let counters = site.path().join("counters");
    let mut bytes = fs::read(&counters).unwrap();
    bytes.truncate(2 * bliss_core::metrics::SLOT_BYTES);
    bytes[12..16].copy_from_slice(&1_u32.to_le_bytes());
    fs::remove_file(&counters).unwrap();
    fs::write(&counters, bytes).unwrap();
    assert_eq!(use_it(site.path()).0, BLISS_OK);
    let used = fs::read(&counters).unwrap();
    assert!(used[bliss_core::metrics::SLOT_BYTES..].iter().any(|byte| *byte != 0), "the slot is used");
    let names: Vec<_> = fs::read_dir(site.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    let mut random = Random(7);
    let mut codes = std::collections::BTreeMap::<i32, u32>::new();
    for round in 0..400 {
        let damaged = copy(site.path());
        let file = damaged.path().join(&names[round % names.len()]);
        let mut bytes = fs::read(&file).unwrap();
        if !bytes.is_empty() {
            // Headers and metadata are hit more often than rows.
            let range = if random.next(2) == 0 { bytes.len().min(256) } else { bytes.len() };
            match random.next(4) {
                0 => bytes.truncate(random.next(range)),
                1 => bytes.iter_mut().for_each(|b| *b = 0xff),
                _ => (0..1 + random.next(8)).for_each(|_| {
                    let at = random.next(range);
                    bytes[at] = random.next(256) as u8;
                }),
            }
        }
        fs::write(&file, bytes).unwrap();
        let (code, text) = use_it(damaged.path());
        assert!(code == BLISS_OK || !text.is_empty(), "{code:?} without a message");
        assert_ne!(code, BLISS_ERROR_PANIC, "{} {text}", file.display());
        *codes.entry(code as i32).or_default() += 1;
    }
    assert!(codes.len() >= 4, "{codes:?}");
}

/// Damage to the compiled models alone: leaf weights and trees are read by explanations only.
#[test]
fn f2_damaged_weights_are_codes() {
    let mut site = support::Site::published();
    site.stop_publisher();
    let data: Vec<_> = fs::read_dir(site.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("models_data"))
        .collect();
    let mut random = Random(11);
    let (mut damaged_weights, mut explained) = (0, 0);
    for _ in 0..150 {
        let damaged = copy(site.path());
        for file in &data {
            let mut bytes = fs::read(file).unwrap();
            let starts: Vec<_> =
                bytes.windows(8).enumerate().filter(|(_, w)| w == b"BLISSMDL").map(|(at, _)| at).collect();
            for start in starts {
                // The last section: the weights of three trees of one level, each behind the order of its levels.
                let length = u64::from_le_bytes(bytes[start + 16..start + 24].try_into().unwrap()) as usize;
                let word = start + length - 128 + 8 * random.next(9);
                let value = [f64::NAN, f64::INFINITY, -1.0, f64::MAX, 1e-300, 0.0][random.next(6)];
                bytes[word..word + 8].copy_from_slice(&value.to_le_bytes());
            }
            fs::write(damaged.path().join(file.file_name().unwrap()), bytes).unwrap();
        }
        let name = damaged.path().to_str().unwrap();
        unsafe {
            let mut handle = std::ptr::null_mut();
            let null = std::ptr::null_mut::<c_char>();
            let options = bliss_options_t { size: size_of::<bliss_options_t>(), max_size_bytes: 1 << 24 };
            let opened = bliss_open(name.as_ptr().cast(), name.len(), &options, &mut handle, null, 0);
            assert_eq!(opened, BLISS_OK);
            bliss_number_register(handle, c"header_count".as_ptr(), 12);
            bliss_category_register(handle, c"country".as_ptr(), 7);
            match explain(handle) {
                BLISS_OK => explained += 1,
                BLISS_BAD_MODELS => {
                    let mut text = [0 as c_char; 512];
                    bliss_last_error(handle, text.as_mut_ptr(), text.len());
                    let text: String =
                        text.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect();
                    assert!(text.contains("leaf weights of tree"), "{text}");
                    let mut answer: bliss_answer_t = std::mem::zeroed();
                    answer.size = size_of::<bliss_answer_t>();
                    let scored = bliss_score(handle, std::ptr::null(), 0, support::now(), &mut answer);
                    assert_eq!(scored, BLISS_OK, "scores read no weights");
                    damaged_weights += 1;
                }
                other => panic!("{other:?}"),
            }
            bliss_close(handle);
        }
    }
    assert!(damaged_weights > 20 && explained > 5, "{damaged_weights} refused, {explained} explained");
}

#[test]
fn f2_errors_say_which_file_and_why() {
    let mut site = support::Site::published();
    site.stop_publisher();
    let file = site.path().join("features_state");
    fs::write(&file, vec![0x41; 4096]).unwrap();
    let (code, text) = use_it(site.path());
    assert_eq!(code, BLISS_ERROR_OPEN);
    assert!(text.contains(file.to_str().unwrap()) && text.contains("not a file of mmap-sync"), "{text}");
}

#[test]
fn missing_inputs_are_named() {
    let site = support::Site::published();
    let name = site.path().to_str().unwrap();
    unsafe {
        let mut handle = std::ptr::null_mut();
        let null = std::ptr::null_mut::<c_char>();
        assert_eq!(bliss_open(name.as_ptr().cast(), name.len(), null.cast(), &mut handle, null, 0), BLISS_OK);
        let mut answer: bliss_answer_t = std::mem::zeroed();
        answer.size = size_of::<bliss_answer_t>();
        let score = |answer: &mut bliss_answer_t| {
            let code = bliss_score(handle, c"login".as_ptr(), 5, support::now(), answer);
            let input = answer.missing_input;
            let input = match input.len {
                0 => &[],
                len => std::slice::from_raw_parts(input.data.cast::<u8>(), len),
            };
            (code, String::from_utf8(input.to_vec()).unwrap())
        };
        assert_eq!(score(&mut answer), (BLISS_MISSING_INPUT, "request.header_count".into()));
        let mut text = [0 as c_char; 512];
        bliss_last_error(handle, text.as_mut_ptr(), text.len());
        let text: String = text.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect();
        assert!(text.contains("\"request.header_count\""), "{text}");
        // Names may come later; what is of the other type is missing still.
        bliss_number_register(handle, c"header_count".as_ptr(), 12);
        bliss_number_register(handle, c"country".as_ptr(), 7);
        assert_eq!(score(&mut answer), (BLISS_MISSING_INPUT, "request.country".into()));
        bliss_close(handle);
    }
}
