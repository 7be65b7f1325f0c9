//! A main loop of your own that counts, once a second, on whichever node leads: run it on several with the same etcd.
//! `cargo run --example own_loop NODE_ID ETCD_ENDPOINTS`, with METAD_RPC__LISTEN_ADDR and METAD_HTTP__LISTEN_ADDR set.

use std::time::Duration;

use metad::driver::leadership::Leadership;
use metad::election::record::Revision;
use metad::protocol::writes::WriteError;
use metad::{config, meta::store::MetaStore, node::Node};

async fn count(leadership: Leadership) -> Result<(), WriteError> {
    let store = MetaStore::new(leadership.clone(), "user/");
    loop {
        let found = store.get("counter").await?;
        let (count, at) = found.map_or((0, Revision(0)), |entry| {
            let digits = String::from_utf8_lossy(&entry.value).parse();
            (digits.unwrap_or(0), entry.revision)
        });
        // The store itself refuses this once another node leads, and when the key is not at that revision.
        store.compare_and_set("counter", at, (count + 1_u64).to_string().into_bytes()).await?;
        println!("{} counts {} under token {}", leadership.node(), count + 1, leadership.token());
        tokio::select! {
            lost = leadership.lost() => return Err(lost.into()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, id, etcd] = args.as_slice() else { return Err("own_loop NODE_ID ETCD_ENDPOINTS".into()) };
    let flags = [("node.id", id.clone()), ("store.etcd.endpoints", etcd.clone())];
    let config = config::load(None, config::process_env(), &flags)?.config;
    let ended = |leadership| async { count(leadership).await.unwrap_or_else(|e| println!("stopped: {e}")) };
    let node = Node::builder(config).main_loop(ended).start().await?;
    node.stop_on_signals()?;
    std::process::exit(node.wait().await.0.code())
}
