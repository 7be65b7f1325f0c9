//! The results of the checks.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One gauge for each check that was made.
#[derive(Default)]
pub(super) struct CheckMetrics {
    status: Family<CodeLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

impl CheckMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let help = "Result of a check: 0 pass, 1 warn, 2 fail, 3 unknown; absent until it was made";
        r.register("metad_check_status", help, self.status.clone());
    }

    pub(super) fn made(&self, code: &str, status: i32) {
        self.status.get_or_create(&CodeLabel { code: code.to_owned() }).set(i64::from(status));
    }

    pub(super) fn not_made(&self, code: &str) {
        self.status.remove(&CodeLabel { code: code.to_owned() });
    }
}
