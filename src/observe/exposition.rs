//! Metrics as Prometheus reads them: the text format, version 0.0.4.
//!
//! The format is <https://prometheus.io/docs/instrumenting/exposition_formats/>. A family is
//! written whole, with its help and type before its samples, and at most once. What is not known
//! is left out rather than told as zero.

use std::fmt::Write as _;

/// The content type of [`Exposition::finish`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the samples of a family mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A page of metrics that is being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// A family with one sample, without labels.
    pub fn value(&mut self, kind: Kind, name: &str, help: &str, value: f64) {
        self.family(kind, name, help, &[(&[], value)]);
    }

    /// A family with one sample, or nothing if its value is not known.
    pub fn known(&mut self, kind: Kind, name: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.value(kind, name, help, value);
        }
    }

    /// A family with samples that differ in their labels.
    pub fn family(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: &[(&[(&str, &str)], f64)],
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(kind, name, help);
        for (labels, value) in samples {
            self.sample(name, labels, *value);
        }
    }

    /// A histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head("histogram", name, help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            self.sample(&bucket, &[("le", &number(*bound))], below as f64);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count as f64);
        self.sample(&format!("{name}_sum"), &[], histogram.sum);
        self.sample(&format!("{name}_count"), &[], histogram.count as f64);
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a text cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", number(value));
    }
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        let sign = if value > 0.0 { "+" } else { "-" };
        return format!("{sign}Inf");
    }
    // Without an exponent and with as many digits as are needed; NaN is written so too.
    value.to_string()
}

/// How values are spread.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound: values that are above the bound before it.
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    /// An empty one; the bounds are inclusive and grow.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            count: 0,
            sum: 0.0,
        }
    }

    /// Takes a value.
    pub fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[at] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_the_format_wants_it() {
        let mut page = Exposition::default();
        page.value(Kind::Counter, "a_total", "All a.", 12_345_678_901.0);
        page.known(Kind::Gauge, "b_seconds", "Not known.", None);
        let labels: &[(&str, &str)] = &[("x", "say \"hi\\\"\n"), ("y", "")];
        page.family(
            Kind::Gauge,
            "c",
            "One\nand two.",
            &[(labels, f64::INFINITY), (&[("x", "2")], 0.25)],
        );
        let mut histogram = Histogram::new(&[0.5, 2.0]);
        for value in [0.5, 0.75, 3.0] {
            histogram.observe(value);
        }
        page.histogram("d_seconds", "Spread.", &histogram);
        let expected = "# HELP a_total All a.\n\
             # TYPE a_total counter\n\
             a_total 12345678901\n\
             # HELP c One\\nand two.\n\
             # TYPE c gauge\n\
             c{x=\"say \\\"hi\\\\\\\"\\n\",y=\"\"} +Inf\n\
             c{x=\"2\"} 0.25\n\
             # HELP d_seconds Spread.\n\
             # TYPE d_seconds histogram\n\
             d_seconds_bucket{le=\"0.5\"} 1\n\
             d_seconds_bucket{le=\"2\"} 2\n\
             d_seconds_bucket{le=\"+Inf\"} 3\n\
             d_seconds_sum 4.25\n\
             d_seconds_count 3\n";
        assert_eq!(page.finish(), expected);
    }
}
