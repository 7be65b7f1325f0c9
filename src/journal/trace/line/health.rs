//! The health of a member, as a trace has it.

use serde::{Deserialize, Serialize};

use super::At;
use crate::election::probe::{Failing, MemberHealth};

/// Mirrors [`MemberHealth`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracedHealth {
    Unprobed,
    Untried,
    Healthy { since: At },
    Failing { since: At, measured: String, has_failed: bool },
}

impl From<&MemberHealth> for TracedHealth {
    fn from(health: &MemberHealth) -> Self {
        match health {
            MemberHealth::Unprobed => TracedHealth::Unprobed,
            MemberHealth::Untried => TracedHealth::Untried,
            MemberHealth::Healthy { since } => TracedHealth::Healthy { since: (*since).into() },
            MemberHealth::Failing(Failing { since, measured, has_failed }) => TracedHealth::Failing {
                since: (*since).into(),
                measured: measured.clone(),
                has_failed: *has_failed,
            },
        }
    }
}

impl From<TracedHealth> for MemberHealth {
    fn from(health: TracedHealth) -> Self {
        match health {
            TracedHealth::Unprobed => MemberHealth::Unprobed,
            TracedHealth::Untried => MemberHealth::Untried,
            TracedHealth::Healthy { since } => MemberHealth::Healthy { since: since.into() },
            TracedHealth::Failing { since, measured, has_failed } => {
                MemberHealth::Failing(Failing { since: since.into(), measured, has_failed })
            }
        }
    }
}
