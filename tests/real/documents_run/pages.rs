//! A page, cut into what is to be run and what is to be seen.

use std::path::Path;

/// A block of shell commands, and the output that the page shows below it.
#[derive(Clone, Debug)]
pub struct Block {
    /// The heading above it.
    pub section: String,
    /// What is to be typed.
    pub commands: String,
    /// What is shown.
    pub shown: String,
    /// Is it only for a real machine?
    pub is_for_host: bool,
}

/// All blocks of a page of `src/docs`, in their order.
pub fn blocks(page: &str) -> Vec<Block> {
    blocks_of(&read(page))
}

fn read(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs").join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn blocks_of(text: &str) -> Vec<Block> {
    let (mut blocks, mut section) = (Vec::<Block>::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) =
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
        {
            section = heading.to_owned();
        }
        // A block in a list is indented, and so are its lines.
        let fence = line.trim_start();
        let Some(info) = fence.strip_prefix("```") else { continue };
        let indent = line.len() - fence.len();
        let body = lines.by_ref().take_while(|l| l.trim() != "```");
        let body: String = body.map(|l| format!("{}\n", l.get(indent..).unwrap_or_default())).collect();
        match info {
            "sh" | "sh host" => blocks.push(Block {
                section: section.clone(),
                commands: body,
                shown: String::new(),
                is_for_host: info != "sh",
            }),
            "text" => blocks.last_mut().expect("output follows commands").shown += &body,
            "toml" | "yaml" => {}
            other => panic!("a block of {other:?} is neither run nor shown: {body}"),
        }
    }
    blocks
}

/// The rows of the first table of a page, cell by cell, without its head.
pub fn first_table(page: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let rows = text.lines().skip_while(|l| !l.starts_with("| ")).take_while(|l| l.starts_with("| "));
    let cells = |row: &str| row.trim_matches(['|', ' ']).split(" | ").map(|c| c.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

#[test]
fn a_page_is_cut_into_blocks_with_what_they_show() {
    let page = "## One\n```sh\na\n```\n```text\nb\n```\n## Two\n1. x\n   ```sh host\n   c\n     d\n   ```\n";
    let found = blocks_of(page);
    let told: Vec<_> = found.iter().map(|b| (&*b.section, &*b.commands, &*b.shown, b.is_for_host)).collect();
    assert_eq!(told, [("One", "a\n", "b\n", false), ("Two", "c\n  d\n", "", true)]);
}
