//! `template-manager.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use source::SourceConfig;
use source::demo::DemoConfig;
use work::contract::feed::NodeAccess;
use work::payout::Network;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTP side; port 0 takes any free one.
    #[serde(default = "default_listen_addr")]
    pub listen_addr: String,
    /// The chain.
    pub network: Network,
    /// Folder for `addresses.json`; made if it is missing.
    pub data_dir: PathBuf,
    /// `demo://`, or the JSON-RPC address of the only node. Either this or `[[node]]`.
    #[serde(default)]
    pub source: Option<String>,
    /// What lets in at `source`: `cookie:/path`, `user:password`, or nothing.
    #[serde(default)]
    pub source_auth: Option<String>,
    /// Several nodes in the order of preference; one of them is in use.
    #[serde(default)]
    pub node: Vec<Node>,
    /// Milliseconds between two templates of one tip.
    #[serde(default = "default_poll_interval_ms")]
    pub poll_interval_ms: u64,
    /// The simulated chain.
    #[serde(default)]
    pub demo: Demo,
}

/// `[[node]]`: one of several nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its JSON-RPC address.
    pub url: String,
    /// `cookie:/path`, `user:password`, or nothing.
    #[serde(default)]
    pub auth: Option<String>,
}

/// `[demo]`: what the simulated chain is like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Demo {
    /// Milliseconds until the chain makes a block of its own; 0 = never.
    pub block_interval_ms: u64,
    /// Transactions in a full mempool.
    pub mempool_transactions: usize,
    /// What chance starts from.
    pub seed: u64,
    /// Compact target of every block, eight hexadecimal digits.
    pub nbits: String,
}

impl Default for Demo {
    fn default() -> Self {
        let demo = DemoConfig::default();
        Demo {
            block_interval_ms: demo.block_interval_ms,
            mempool_transactions: demo.mempool_transactions,
            seed: demo.seed,
            nbits: format!("{:08x}", demo.nbits),
        }
    }
}

fn default_listen_addr() -> String {
    "127.0.0.1:8082".to_owned()
}

fn default_poll_interval_ms() -> u64 {
    1_000
}

impl Config {
    /// Read and check the file at `path`.
    ///
    /// # Errors
    /// A message with the place in the file and what was expected.
    pub fn read(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Config::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Read and check `text`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        u32::from_str_radix(&config.demo.nbits, 16).map_err(|_| {
            format!("demo.nbits is \"{}\"; expected like \"1e0377ae\"", config.demo.nbits)
        })?;
        match (&config.source, config.node.as_slice()) {
            (Some(_), []) => {}
            (None, [_, ..]) if config.source_auth.is_none() => {}
            (None, [_, ..]) => {
                return Err("source_auth belongs to source; write auth into each [[node]]".into());
            }
            (Some(_), [_, ..]) => {
                return Err("both source and [[node]] are given; keep one of them: source for \
                            demo:// or one node, [[node]] for several"
                    .into());
            }
            (None, []) => {
                return Err("where templates come from is missing; add source = \"demo://\", or \
                            source = \"http://127.0.0.1:8332\" with source_auth, or one \
                            [[node]] with url and auth for each node"
                    .into());
            }
        }
        config.source_config().check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// The part that the source needs.
    pub fn source_config(&self) -> SourceConfig {
        let only = self
            .source
            .iter()
            .map(|url| NodeAccess { url: url.clone(), auth: self.source_auth.clone() });
        let several = self
            .node
            .iter()
            .map(|node| NodeAccess { url: node.url.clone(), auth: node.auth.clone() });
        SourceConfig {
            nodes: only.chain(several).collect(),
            network: self.network,
            poll_interval_ms: self.poll_interval_ms,
            demo: DemoConfig {
                block_interval_ms: self.demo.block_interval_ms,
                mempool_transactions: self.demo.mempool_transactions,
                seed: self.demo.seed,
                // Checked when the file was read; 0 stands for no target and is refused later.
                nbits: u32::from_str_radix(&self.demo.nbits, 16).unwrap_or(0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "network = \"regtest\"\ndata_dir = \"data\"\nsource = \"demo://\"\n";

    #[test]
    fn the_least_file_has_the_documented_defaults() {
        let config = Config::parse(LEAST).unwrap();
        assert_eq!(config.listen_addr, "127.0.0.1:8082");
        assert_eq!(config.poll_interval_ms, 1_000);
        let demo = config.source_config().demo;
        assert_eq!(demo, DemoConfig::default());
        assert_eq!((demo.block_interval_ms, demo.nbits), (30_000, 0x1e03_77ae));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, part: &str| {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        };
        check(&format!("{LEAST}lisen_addr = \"x\""), "lisen_addr");
        check(&format!("{LEAST}poll_interval_ms = 1"), "100 to 60000");
        check(&format!("{LEAST}[demo]\nnbits = \"xyz\""), "1e0377ae");
        check("data_dir = \"data\"\nsource = \"demo://\"", "network");
        check(&LEAST.replace("regtest", "main"), "regtest");
        check(&LEAST.replace("demo://", "tcp://x"), "expected demo://");
        check(&LEAST.replace("demo://", "http://a:b@x:1"), "source_auth");
        let node = LEAST.replace("demo://", "http://127.0.0.1:18443");
        check(&format!("{node}source_auth = \"cookie:\""), "cookie:/path");
        assert!(Config::parse(&format!("{node}source_auth = \"a:b\"")).is_ok());

        let none = LEAST.replace("source = \"demo://\"\n", "");
        check(&none, "[[node]]");
        let one = |port: u16| format!("[[node]]\nurl = \"http://127.0.0.1:{port}\"\n");
        check(&format!("{LEAST}{}", one(1)), "keep one of them");
        check(&format!("{none}source_auth = \"a:b\"\n{}", one(1)), "into each [[node]]");
        check(&format!("{none}{}{}", one(1), one(1)), "configured twice");
        check(&format!("{none}{}auth = \"x\"", one(1)), "cookie:/path");
        check(&format!("{none}{}user = \"x\"", one(1)), "user");
        check(&format!("{none}{}", (1..=9).map(one).collect::<String>()), "1 to 8");
        let demo = "[[node]]\nurl = \"demo://\"\n";
        check(&format!("{none}{demo}{}", one(1)), "demo:// (alone)");
    }

    /// Goal: the sample names every key, and its commented ones have their defaults.
    #[test]
    fn the_sample_is_whole() {
        let sample = include_str!("../../../config/template-manager.toml");
        let config = Config::parse(sample).unwrap();
        assert_eq!(config.node.len(), 1);
        // Uncommented, the keys with defaults change nothing.
        let uncommented = |line: &str| {
            let text = line.strip_prefix("# ").unwrap_or(line);
            let is_key = text.split_once(" = ").is_some_and(|(key, _)| {
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            });
            let is_other = ["source", "url", "auth"].iter().any(|key| text.starts_with(key));
            let is_shown = line != text && (is_key && !is_other || text == "[demo]");
            if is_shown { text.to_owned() } else { line.to_owned() }
        };
        let all: String = sample.lines().map(|line| uncommented(line) + "\n").collect();
        for key in ["listen_addr", "poll_interval_ms", "block_interval_ms", "seed", "nbits"] {
            assert!(all.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
        let shown = Config::parse(&all).unwrap();
        assert_eq!(format!("{config:?}"), format!("{shown:?}"));
    }

    #[test]
    fn nodes_keep_their_order() {
        let text = "network = \"main\"\ndata_dir = \"data\"\n\
                    [[node]]\nurl = \"http://a:1\"\nauth = \"u:p\"\n\
                    [[node]]\nurl = \"http://b:1\"\n";
        let nodes = Config::parse(text).unwrap().source_config().nodes;
        let access = |url: &str, auth: Option<&str>| NodeAccess {
            url: url.to_owned(),
            auth: auth.map(str::to_owned),
        };
        assert_eq!(nodes, [access("http://a:1", Some("u:p")), access("http://b:1", None)]);
    }
}
