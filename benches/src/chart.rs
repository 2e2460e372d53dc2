//! Records as one HTML page: per benchmark a chart on a logarithmic axis, as inline SVG without a script.
//!
//! Each subject has a lane: how its times are distributed (heights are square roots of counts, so that tails show), with
//! marks at p50, p99 and p99.9; where a benchmark gives seconds, the median and from the least to the most.

use std::fmt::Write as _;

use serde_json::Value;

use crate::goals::Verdict;
use crate::measure::STEPS;
use crate::records::Record;
use crate::report::Row;

const LANE: f64 = 44.0;
const LEFT: f64 = 216.0;
const PLOT: f64 = 480.0;
const RIGHT: f64 = 264.0;
const TOP: f64 = 8.0;
const AXIS: f64 = 26.0;
/// Height of a distribution in its lane.
const HEIGHT: f64 = 26.0;

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#1b1d1f;--muted:#5d6369;--line:#dfe2e5;--ours:#1f6fd0;--peer:#8b9198;
--floor:#2f8f5b;--short:#b3461e}
@media(prefers-color-scheme:dark){:root{--page:#16181a;--ink:#e7e9eb;--muted:#9ba2a9;--line:#34383d;--ours:#6aa8f2;
--peer:#8d949b;--floor:#5fbf8c;--short:#f0916a}}
body{background:var(--page);color:var(--ink);font:15px/1.45 system-ui,sans-serif;max-width:980px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.4rem 0 .2rem}p{margin:.3rem 0;color:var(--muted)}
code{font:13px ui-monospace,monospace;color:var(--ink);overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--muted);font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}
.short{color:var(--short);font-weight:600}
svg{width:100%;min-width:680px;height:auto;display:block;font:12px system-ui,sans-serif}
text{fill:var(--ink)}.axis{fill:var(--muted)}.grid{stroke:var(--line)}
.ours{--c:var(--ours)}.peer{--c:var(--peer)}.floor{--c:var(--floor)}
.area{fill:var(--c);fill-opacity:.32;stroke:var(--c);stroke-width:1}.mark{stroke:var(--c);stroke-width:2}
.dot{fill:var(--c);stroke:var(--page);stroke-width:1.5}.ours text{font-weight:600}
";

/// The page: a table of goals, then a chart and a table for each benchmark, from the newest record that has it.
pub fn page(records: &[Record]) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    html += "<meta name=\"viewport\" content=\"width=device-width\"><title>BLISS: benchmarks</title>\n";
    let _ = write!(html, "<style>{STYLE}</style></head><body>\n<h1>BLISS: benchmarks</h1>\n");
    html += "<p>Of each benchmark the newest record. Axes are logarithmic. Heights are square roots of counts; the marks of a \
             distribution are p50 (dot), p99 and p99.9 (strokes).</p>\n";
    goals(&mut html, records);
    let mut seen: Vec<String> = Vec::new();
    for record in records.iter().rev() {
        let mut is_first = true;
        for title in record.results.iter().map(title) {
            if seen.contains(&title) {
                continue;
            }
            let rows: Vec<&Row> = record.results.iter().filter(|row| self::title(row) == title).collect();
            let _ = writeln!(html, "<h2>{}</h2>", escape(&title));
            circumstances(&mut html, record, is_first);
            is_first = false;
            chart(&mut html, &title, &rows);
            table(&mut html, &rows);
            seen.push(title);
        }
    }
    html + "</body></html>\n"
}

/// The number of keys that was asked for: a workload has as many in each dimension, and so a few less.
fn asked(keys: f64) -> f64 {
    let unit = 10_f64.powf(keys.max(1.0).log10().ceil() - 3.0).max(1.0);
    (keys / unit).round() * unit
}

/// The benchmark and what it was asked for: rows of one title are compared with each other.
fn title(row: &Row) -> String {
    let mut title = row.bench.clone();
    if let Some(keys) = row.number("keys") {
        let _ = write!(title, ", {} keys", grouped(asked(keys)));
    }
    if let Some(distribution) = row.field("distribution").and_then(Value::as_str) {
        let _ = write!(title, ", {distribution}");
    }
    title
}

fn circumstances(html: &mut String, record: &Record, in_full: bool) {
    let _ = writeln!(
        html,
        "<p>{}, commit {}: <code>{}</code>{}</p>",
        escape(&record.date),
        escape(&record.commit),
        escape(&record.command),
        if record.transcribed.is_some() { "; copied by hand, without distributions" } else { "" }
    );
    if in_full {
        let m = &record.machine;
        let _ = writeln!(
            html,
            "<p>{} × {}, Linux {}, load {}; {}; files on {}, {}.</p>",
            m.cores,
            escape(&m.cpu),
            escape(&m.kernel),
            escape(&m.load),
            escape(&m.compiler),
            escape(&m.mount),
            escape(&m.pages)
        );
        if let Some(note) = &record.note {
            let _ = writeln!(html, "<p>{}</p>", escape(note));
        }
    }
}

/// Whether a verdict is on as many keys as the goals are set for, asked for uniformly, or on something without keys.
fn is_at_scale(record: &Record, verdict: &Verdict) -> bool {
    let mut rows = record.results.iter().filter(|row| row.bench == verdict.bench);
    rows.all(|row| {
        row.number("keys").is_none_or(|keys| asked(keys) == 1e7)
            && row.field("distribution").is_none_or(|distribution| distribution == "uniform")
    })
}

/// The newest verdict on each goal.
fn goals(html: &mut String, records: &[Record]) {
    let mut newest: Vec<(&Record, &Verdict)> = Vec::new();
    for record in records.iter().rev() {
        for verdict in record.goals.iter().filter(|verdict| is_at_scale(record, verdict)) {
            let key = |v: &Verdict| {
                (v.bench.clone(), v.ours.clone(), v.peer.clone(), v.figure.clone(), v.goal.clone())
            };
            if !newest.iter().any(|(_, known)| key(known) == key(verdict)) {
                newest.push((record, verdict));
            }
        }
    }
    if newest.is_empty() {
        return;
    }
    *html += "<h2>Goals, at 10 million keys</h2>\n<div class=\"scroll\"><table><tr><th>benchmark</th><th>figure</th><th class=\"n\">ours</th>\
              <th>against</th><th class=\"n\">theirs</th><th class=\"n\">ratio</th><th>goal</th><th>verdict</th><th>date</th></tr>\n";
    for (record, v) in newest {
        let ours = if v.ours == "bliss" { String::new() } else { format!(" ({})", escape(&v.ours)) };
        let peer_value = v.peer_value.map(|value| figure(&v.figure, value)).unwrap_or_default();
        let ratio = if v.peer.is_empty() { String::new() } else { format!("{}x", digits(v.ratio)) };
        let _ = writeln!(
            html,
            "<tr><td>{}{ours}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{peer_value}</td>\
             <td class=\"n\">{ratio}</td><td>{}</td><td class=\"{}\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&v.bench),
            label(&v.figure),
            figure(&v.figure, v.our_value),
            escape(&v.peer),
            if v.peer.is_empty() {
                format!("at most {}", figure(&v.figure, v.our_value / v.ratio))
            } else {
                escape(&v.goal)
            },
            v.word(),
            v.word(),
            escape(record.date.get(..10).unwrap_or_default())
        );
    }
    *html += "</table></div>\n";
}

/// Marks of a row in nanoseconds: the middle one, then others, and what they are called.
fn marks(row: &Row) -> Vec<(&'static str, f64)> {
    let ns = |name, label| row.number(name).map(|ns| (label, ns));
    let seconds = |name, label| row.number(name).map(|seconds| (label, seconds * 1e9));
    let of_times = [ns("p50_ns", "p50"), ns("p99_ns", "p99"), ns("p999_ns", "p99.9")];
    let of_seconds =
        [seconds("seconds", "median"), seconds("min_seconds", "least"), seconds("max_seconds", "most")];
    let chosen = if of_times[0].is_some() { of_times } else { of_seconds };
    chosen.into_iter().flatten().filter(|(_, ns)| *ns > 0.0).collect()
}

fn chart(html: &mut String, bench: &str, rows: &[&Row]) {
    let rows: Vec<&&Row> = rows.iter().filter(|row| !marks(row).is_empty()).collect();
    let all: Vec<f64> = rows.iter().flat_map(|row| marks(row)).map(|(_, ns)| ns).collect();
    let curves = rows.iter().flat_map(|row| visible(row)).map(|(ns, _)| ns);
    let (least, most) =
        all.iter().copied().chain(curves).fold((f64::MAX, 0.0_f64), |(a, b), ns| (a.min(ns), b.max(ns)));
    if rows.is_empty() || most <= 0.0 {
        return;
    }
    let first = least.log10().floor();
    let last = most.log10().ceil().max(first + 1.0);
    let x = |ns: f64| LEFT + PLOT * ((ns.max(1e-3).log10() - first) / (last - first)).clamp(0.0, 1.0);
    let bottom = TOP + LANE * rows.len() as f64;
    let (width, height) = (LEFT + PLOT + RIGHT, bottom + AXIS);
    let _ = writeln!(
        html,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(&format!("Distribution of times of {bench}, by subject, on a logarithmic axis"))
    );
    let decades = (last - first).round() as i32;
    // With many decades every second one is named.
    let every = if decades > 8 { 2 } else { 1 };
    for decade in 0..=decades {
        let ns = 10_f64.powi(first as i32 + decade);
        let at = x(ns);
        let _ =
            write!(html, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        if decade % every == 0 {
            let _ = write!(
                html,
                "<text class=\"axis\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 17.0,
                time(ns)
            );
        }
    }
    html.push('\n');
    for (lane, row) in rows.iter().enumerate() {
        let base = TOP + LANE * (lane + 1) as f64 - 8.0;
        lane_of(html, row, base, &x);
    }
    *html += "</svg></div>\n";
}

/// What is drawn of a distribution: up to its p99.99, since single times reach far beyond.
fn visible(row: &Row) -> Vec<(f64, u64)> {
    let total: u64 = row.curve.iter().map(|(_, count)| count).sum();
    let mut before = 0;
    let mut seen = Vec::new();
    for (ns, count) in &row.curve {
        if before as f64 > total as f64 * 0.9999 {
            break;
        }
        before += count;
        seen.push((*ns, *count));
    }
    seen
}

fn lane_of(html: &mut String, row: &Row, base: f64, x: &impl Fn(f64) -> f64) {
    let class = if row.subject.starts_with("bliss") {
        "ours"
    } else if row.subject.starts_with("floor") {
        "floor"
    } else {
        "peer"
    };
    let name = escape(&shortened(&row.subject));
    let _ = write!(
        html,
        "<g class=\"{class}\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
        LEFT - 12.0,
        base - 6.0
    );
    let _ = write!(
        html,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\"/>",
        LEFT + PLOT
    );
    let curve = visible(row);
    let most = curve.iter().map(|(_, count)| *count).max().unwrap_or(1) as f64;
    let step = 10_f64.powf(1.0 / STEPS);
    // A step that follows an empty one begins at the base line.
    let mut path = String::new();
    let mut end = 0.0;
    for (ns, count) in &curve {
        let (from, to) = (x(*ns), x(ns * step));
        let y = base - HEIGHT * (*count as f64 / most).sqrt();
        if from - end > 0.6 {
            if !path.is_empty() {
                let _ = write!(path, "V{base:.1}Z");
            }
            let _ = write!(path, "M{from:.1} {base:.1}");
        }
        let _ = write!(path, "V{y:.1}H{to:.1}");
        end = to;
    }
    if !path.is_empty() {
        let _ = write!(html, "<path class=\"area\" d=\"{path}V{base:.1}Z\"/>");
    }
    let marks = marks(row);
    let positions = || marks.iter().map(|(_, ns)| x(*ns));
    let (least, most) = positions().fold((f64::MAX, 0.0_f64), |(a, b), at| (a.min(at), b.max(at)));
    let _ =
        write!(html, "<line class=\"mark\" x1=\"{least:.1}\" x2=\"{most:.1}\" y1=\"{base}\" y2=\"{base}\"/>");
    for (label, ns) in marks.iter().skip(1) {
        let at = x(*ns);
        let (from, to) = (base - 6.0, base + 4.0);
        let _ = write!(
            html,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{from}\" y2=\"{to}\"><title>{label} {}</title></line>",
            time(*ns)
        );
    }
    if let Some((label, ns)) = marks.first() {
        let _ = write!(
            html,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{base}\" r=\"5\"><title>{label} {}</title></circle>",
            x(*ns),
            time(*ns)
        );
    }
    let texts: Vec<String> = marks.iter().map(|(label, ns)| format!("{label} {}", time(*ns))).collect();
    let _ = writeln!(
        html,
        "<text class=\"axis\" style=\"font-weight:400\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        LEFT + PLOT + 12.0,
        base - 6.0,
        texts.join(" · ")
    );
}

/// Fields that a table of a benchmark shows where a row has them; what a chart says already is not among them, but for the
/// figure that ratios are of.
const COLUMNS: [(&str, &str); 18] = [
    ("p50_ns", "p50"),
    ("p90_ns", "p90"),
    ("p99_ns", "p99"),
    ("p999_ns", "p99.9"),
    ("max_ns", "most"),
    ("seconds", "median"),
    ("cpu_seconds", "processor"),
    ("bytes", "bytes"),
    ("huge_page_bytes", "in huge pages"),
    ("per_second", "per second"),
    ("writes_per_second", "writes per second"),
    ("post_us", "the post"),
    ("workers", "workers"),
    ("torn_reads", "torn reads"),
    ("writer", "the writer"),
    ("other_readers", "other readers"),
    ("stopped", "the stopped reader"),
    ("publications", "publications"),
];

fn table(html: &mut String, rows: &[&Row]) {
    let columns: Vec<_> =
        COLUMNS.iter().filter(|(name, _)| rows.iter().any(|row| row.field(name).is_some())).collect();
    let of = ["p50_ns", "seconds"].into_iter().find(|name| rows.iter().any(|row| row.number(name).is_some()));
    *html += "<div class=\"scroll\"><table><tr><th>subject</th>";
    for (_, title) in &columns {
        let _ = write!(html, "<th class=\"n\">{title}</th>");
    }
    if of.is_some() {
        *html += "<th class=\"n\">ratio</th>";
    }
    *html += "</tr>\n";
    let first = of.and_then(|name| rows.first()?.number(name));
    for row in rows {
        let _ = write!(html, "<tr><td>{}</td>", escape(&row.subject));
        for (name, _) in &columns {
            let cell = match row.field(name) {
                None => String::new(),
                Some(Value::String(text)) => escape(text),
                Some(value) => value.as_f64().map(|number| figure(name, number)).unwrap_or_default(),
            };
            let is_text = row.field(name).is_some_and(Value::is_string);
            let _ = write!(html, "<td{}>{cell}</td>", if is_text { "" } else { " class=\"n\"" });
        }
        if let Some(name) = of {
            let ratio = row.number(name).zip(first).filter(|(_, first)| *first > 0.0);
            let _ = write!(
                html,
                "<td class=\"n\">{}</td>",
                ratio.map(|(this, first)| format!("{}x", digits(this / first))).unwrap_or_default()
            );
        }
        *html += "</tr>\n";
    }
    *html += "</table></div>\n";
}

/// A name that fits beside the plot.
fn shortened(name: &str) -> String {
    const MOST: usize = 32;
    if name.chars().count() <= MOST {
        name.to_owned()
    } else {
        name.chars().take(MOST - 1).collect::<String>() + "…"
    }
}

fn label(figure: &str) -> &str {
    COLUMNS.iter().find(|(name, _)| *name == figure).map_or(figure, |(_, title)| title)
}

/// A figure with its unit, by its name.
fn figure(name: &str, value: f64) -> String {
    if name.ends_with("_ns") {
        time(value)
    } else if name.ends_with("_us") {
        time(value * 1e3)
    } else if name.ends_with("seconds") {
        time(value * 1e9)
    } else if name.ends_with("bytes") {
        format!("{:.0} MB", value / 1e6)
    } else {
        grouped(value)
    }
}

/// Three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        n if n >= 99.95 => format!("{value:.0}"),
        n if n >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A time with a unit that leaves up to three digits before the point.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        n if n >= 999.5e6 => (ns / 1e9, "s"),
        n if n >= 999.5e3 => (ns / 1e6, "ms"),
        n if n >= 999.5 => (ns / 1e3, "µs"),
        _ => (ns, "ns"),
    };
    let text = digits(value);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// A whole number with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Times;
    use crate::report::Report;

    #[test]
    fn every_benchmark_has_a_chart_and_a_table() {
        let mut times = Times::new();
        (1..=10_000).for_each(|ns| times.add_ns(f64::from(ns)));
        let mut report = Report::new(true);
        let lookup =
            |subject| Row::new("lookup", subject).with("keys", 10_000_000).with("distribution", "uniform");
        report.add(lookup("bliss").with_times(&times));
        report.add(lookup("a <b>").with("p50_ns", 50_000.0).with("p99_ns", 90_000.0));
        report.add(Row::new("publish_all", "bliss").with("seconds", 0.5).with("min_seconds", 0.4));
        report.add(Row::new("locks", "mutex").with("writer", "waits"));
        let html = page(&[Record::of(&report, std::iter::empty())]);
        assert_eq!(html.matches("<svg").count(), 2);
        assert_eq!(html.matches("<table>").count(), 3);
        assert!(html.contains("a &lt;b&gt;") && html.contains("prefers-color-scheme:dark"));
        assert!(
            html.contains("<h2>lookup, 10,000,000 keys, uniform</h2>") && html.contains("<h2>locks</h2>")
        );
        assert!(!html.contains("<script") && !html.contains("NaN"));
    }

    #[test]
    fn goals_are_judged_at_their_scale() {
        let verdicts_of = |keys: u64, peer: f64| {
            let mut report = Report::new(true);
            report.add(Row::new("lookup", "bliss").with("keys", keys).with("p50_ns", 100.0));
            report.add(Row::new("lookup", "mmap-sync 2.0.4").with("keys", keys).with("p50_ns", peer));
            Record::of(&report, std::iter::empty())
        };
        let html = page(&[verdicts_of(9_999_996, 900.0), verdicts_of(1_000_000, 100.0)]);
        assert!(html.contains(">holds<") && !html.contains(">short<"));
    }

    #[test]
    fn times_have_units() {
        let shown: Vec<_> = [2.7, 621.0, 1142.0, 5e6, 1.35e9].into_iter().map(time).collect();
        assert_eq!(shown, ["2.7 ns", "621 ns", "1.14 µs", "5 ms", "1.35 s"]);
        assert_eq!([asked(9_999_996.0), asked(120_000.0), asked(996.0)], [1e7, 120_000.0, 996.0]);
        assert_eq!(grouped(1_908_613.0), "1,908,613");
    }
}
