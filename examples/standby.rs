//! A main loop that finds its cache warm when its node leads: run it on several nodes with the same etcd.
//! `cargo run --example standby NODE_ID ETCD_ENDPOINTS`, with METAD_RPC__LISTEN_ADDR and METAD_HTTP__LISTEN_ADDR set.

use std::collections::HashMap;
use std::time::Duration;

use metad::driver::leadership::Leadership;
use metad::meta::standby::Candidate;
use metad::{config, node::Node};

/// What takes long and changes nothing: it runs on every candidate, as soon as that starts.
async fn warm_up(candidate: Candidate) -> HashMap<String, u64> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{} is warm", candidate.node());
    HashMap::from([("answer".to_owned(), 42)])
}

async fn lead(leadership: Leadership, cache: HashMap<String, u64>) {
    println!("{} leads with token {}: {cache:?}", leadership.node(), leadership.token());
    println!("{}", leadership.lost().await);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, id, etcd] = args.as_slice() else { return Err("standby NODE_ID ETCD_ENDPOINTS".into()) };
    let flags = [("node.id", id.clone()), ("store.etcd.endpoints", etcd.clone())];
    let config = config::load(None, config::process_env(), &flags)?.config;
    let node = Node::builder(config).standby(warm_up).main_loop(lead).start().await?;
    node.stop_on_signals()?;
    std::process::exit(node.wait().await.0.code())
}
