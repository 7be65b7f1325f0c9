//! A main loop that finds its cache warm when its node leads: run it on several nodes, with METAD_NODE__ID,
//! METAD_STORE__ETCD__ENDPOINTS, METAD_RPC__LISTEN_ADDR and METAD_HTTP__LISTEN_ADDR set. `cargo run --example standby`

use std::collections::HashMap;
use std::time::Duration;

use metad::driver::leadership::Leadership;
use metad::meta::standby::StandbyNode;
use metad::{config, node::Node};

/// What takes long and changes nothing: it runs on every candidate, as soon as that starts.
async fn warm_up(node: StandbyNode) -> HashMap<String, u64> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{} is warm", node.node());
    HashMap::from([("answer".to_owned(), 42)])
}

async fn lead(leadership: Leadership, cache: HashMap<String, u64>) {
    println!("{} leads with token {}: {cache:?}", leadership.node(), leadership.token());
    println!("{}", leadership.lost().await);
}

#[tokio::main]
pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = config::load(None, config::process_env(), &[])?.config;
    let node = Node::builder(config).standby(warm_up).main_loop(lead).start().await?;
    node.stop_on_signals()?;
    std::process::exit(node.wait().await.0.code())
}
