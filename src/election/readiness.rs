//! What a member says of itself: that it is not ready to lead, and what follows.

/// Why a member is not ready. Nothing is handed over to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unready {
    /// For a person.
    pub why: String,
    /// May it claim a vacancy all the same, after everybody who is ready? Else it never does.
    pub claims_last: bool,
}
