//! `metad freeze` and `metad unfreeze`.

use std::time::Duration;

use super::args::{FreezeArgs, MetaArgs};
use super::{Failure, asking, output, steering, target};
use crate::api::view::member::FreezeView;
use crate::client::{CallError, MemberClient};

/// How long a member gets, with its questions to the store.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Exit 0: frozen; 1: refused, or nobody answers.
pub(super) async fn freeze(args: FreezeArgs) -> Result<i32, Failure> {
    let mut member = member(&args.meta).await?;
    let said = member.freeze(&args.reason, args.duration, args.force).await.map_err(not_done)?;
    let freeze = FreezeView::from(said.freeze.unwrap_or_default());
    let mut text = format!(
        "{}\nno leader hands over and no member claims a vacancy meanwhile\n",
        output::frozen(&freeze)
    );
    if let Some(replaced) = said.replaced {
        text += &format!("before: {}\n", output::frozen(&replaced.into()));
    }
    output::print(&text).map(|()| 0)
}

/// Exit 0: not frozen (any more); 1: refused, or nobody answers.
pub(super) async fn unfreeze(meta: MetaArgs) -> Result<i32, Failure> {
    let ended = member(&meta).await?.unfreeze().await.map_err(not_done)?.ended;
    let text = match ended {
        Some(freeze) => format!("ended: {}\n", output::frozen(&freeze.into())),
        None => "the election was not frozen\n".to_owned(),
    };
    output::print(&text).map(|()| 0)
}

/// Any member that takes part in the election will do: it writes to the store itself.
async fn member(meta: &MetaArgs) -> Result<MemberClient, Failure> {
    let target = target::target(meta)?;
    let address = asking::first_that_takes_part(&target).await?.member.address().to_owned();
    MemberClient::connect(&address, &target.credentials, TIMEOUT).await.map_err(not_done)
}

fn not_done(e: CallError) -> Failure {
    steering::not_done(&e, "look at metad status")
}
