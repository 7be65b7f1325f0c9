//! The page for readers that do not know OpenMetrics: `promtool check metrics`, `curl`, older scrapers.

/// An OpenMetrics page in Prometheus's own text format. There a family is named as its samples are, and there is
/// neither an `info` type nor an end mark.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help); // its name ends as the type says
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            text.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples_are() {
        let open = "# HELP a Words.\n# TYPE a counter\na_total{b=\"c d\"} 1\n# HELP s Is.\n# TYPE s info\n\
                    s_info{v=\"1\"} 1\n# HELP g With # and spaces.\n# TYPE g gauge\n# UNIT g seconds\ng 2.5\n# EOF\n";
        let expected = "# HELP a_total Words.\n# TYPE a_total counter\na_total{b=\"c d\"} 1\n\
                        # HELP s_info Is.\n# TYPE s_info gauge\ns_info{v=\"1\"} 1\n\
                        # HELP g With # and spaces.\n# TYPE g gauge\ng 2.5\n";
        assert_eq!(classic(open), expected);
    }
}
