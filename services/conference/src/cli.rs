//! The command line.

mod recordings;
mod token;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::Sources;

pub use recordings::{RecordingsCommand, RecordingsDirectory, RecordingsError, Told};
pub use token::{TokenCreate, TokenError};

/// Group calls, recording and chat for host applications: a multiparty conferencing backend.
///
/// Without a command it serves. Without a configuration everything stays on loopback.
#[derive(Debug, Parser)]
#[command(name = "plenary", version)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    pub fn split(self) -> (SettingsArgs, Command) {
        (self.settings, self.command.unwrap_or(Command::Serve))
    }
}

/// Where settings come from. Flags win over the environment (`PLENARY__SECTION__KEY`), and that over the file.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// The configuration, a TOML file.
    #[arg(long, global = true, value_name = "FILE", env = "PLENARY_CONFIG")]
    config: Option<PathBuf>,
    /// Where HTTP and signalling listen, for instance 0.0.0.0:7880.
    #[arg(long, global = true, value_name = "ADDRESS")]
    bind: Option<SocketAddr>,
    /// Any other setting, for instance room.empty_timeout=1m. May be repeated.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

impl SettingsArgs {
    pub fn sources(&self) -> Sources {
        let bind = self.bind.map(|address| ("http.bind".to_owned(), address.to_string()));
        let overrides = self.set.iter().cloned().chain(bind).collect();
        Sources { file: self.config.clone(), overrides, ..Sources::default() }.with_environment()
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node (the default).
    Serve,
    /// Check the configuration and say what is wrong with it.
    CheckConfig {
        /// Print every setting as it would be used. Secrets are left out.
        #[arg(long)]
        print: bool,
    },
    /// Access tokens.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Recordings on the disk.
    Recordings {
        #[command(subcommand)]
        command: RecordingsCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a new access token.
    Create(Box<TokenCreate>),
}

/// `name=value`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_serves() {
        let line = ["plenary", "--bind", "127.0.0.1:1", "--set", "room.empty_timeout=1m"];
        let (settings, command) = Cli::parse_from(line).split();
        assert!(matches!(command, Command::Serve));
        let sources = settings.sources();
        let expected = [("room.empty_timeout", "1m"), ("http.bind", "127.0.0.1:1")];
        assert_eq!(sources.overrides, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(Cli::try_parse_from(["plenary", "--set", "nothing"]).is_err());
        assert!(Cli::try_parse_from(["plenary", "--bind", "nowhere"]).is_err());
    }

    #[test]
    fn settings_may_follow_the_command() {
        let line = ["plenary", "check-config", "--print", "--config", "x.toml"];
        let (settings, command) = Cli::parse_from(line).split();
        assert!(matches!(command, Command::CheckConfig { print: true }));
        assert_eq!(settings.sources().file, Some("x.toml".into()));
    }
}
