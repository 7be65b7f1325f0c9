//! A value that is computed when somebody looks: a gauge would stand still between two changes.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// What kind of value it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetricKind {
    /// It rises and falls.
    Gauge,
    /// It only rises.
    Counter,
    /// A gauge that is 0 or 1.
    Flag,
}

/// One computed value.
pub(super) struct Computed {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricKind,
    pub(super) value: Box<dyn Fn() -> f64 + Send + Sync>,
}

// === impl Computed ===

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Computed {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let value = (self.value)();
        match self.kind {
            MetricKind::Gauge => encode(encoder, self, &ConstGauge::new(value)),
            MetricKind::Counter => encode(encoder, self, &ConstCounter::new(value)),
            MetricKind::Flag => encode(encoder, self, &ConstGauge::new(i64::from(value != 0.0))),
        }
    }
}

fn encode(
    mut encoder: DescriptorEncoder,
    of: &Computed,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    let help = format!("{}.", of.help); // as the library ends that of the others
    metric.encode(encoder.encode_descriptor(of.name, &help, None, metric.metric_type())?)
}
