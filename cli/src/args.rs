//! What can be asked for.

use std::path::PathBuf;

use clap::Args as Group;
use clap::Parser;
use clap::Subcommand;

use crate::text::Text;

/// Reads, writes, inspects and verifies alluvium databases and checkpoints.
///
/// Keys and values are given as text, or as 0x and hexadecimal digits; they are printed as text where
/// that is unambiguous, else as 0x and digits.
#[derive(Parser)]
#[command(name = "alluvium", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Give a key a value; the database and the family are created if they do not exist.
    Put {
        #[command(flatten)]
        at: At,
        key: Text,
        value: Text,
    },
    /// Delete a key.
    Delete {
        #[command(flatten)]
        at: At,
        key: Text,
    },
    /// Print the value of a key; it is an error if it has none.
    Get {
        #[command(flatten)]
        at: At,
        key: Text,
        /// Print 0x and digits, whatever the value is.
        #[arg(long)]
        hex: bool,
    },
    /// Print keys and values in order, a tab between them.
    Scan {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        range: Range,
        /// Print 0x and digits, whatever keys and values are.
        #[arg(long)]
        hex: bool,
    },
    /// Describe a file: log segment, manifest, CURRENT, table or checkpoint envelope.
    Inspect { file: PathBuf },
    /// Read and check every byte of every table, of the log and of the manifest. Changes nothing.
    Verify { dir: PathBuf },
    /// Print the state of a database: families, levels, log. Changes nothing.
    Stats { dir: PathBuf },
    /// Write what can be proved of a damaged database into a new directory. Changes nothing in DIR.
    ///
    /// Takes the log up to its first damage, and every block of a table that can be read; where one
    /// cannot, its keys are left out, with all older values. Says what was not used, by file and offset.
    /// Fails, with the new directory complete all the same, if it is not certain that the result is
    /// the database as it once was.
    Salvage {
        dir: PathBuf,
        /// The new directory.
        out: PathBuf,
        /// Take nothing newer than this sequence number.
        #[arg(long, value_name = "SEQNO")]
        up_to: Option<u64>,
    },
    /// Look at the checkpoints of a directory store.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
}

#[derive(Group)]
pub struct At {
    /// The database's directory.
    pub dir: PathBuf,
    /// The column family.
    pub family: String,
}

#[derive(Group)]
pub struct Range {
    /// Only keys that begin so.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub prefix: Option<Text>,
    /// From this key on.
    #[arg(long)]
    pub from: Option<Text>,
    /// Up to, but without, this key.
    #[arg(long)]
    pub to: Option<Text>,
    /// From the last key to the first.
    #[arg(long)]
    pub reverse: bool,
    /// At most so many keys.
    #[arg(long)]
    pub limit: Option<u64>,
}

#[derive(Subcommand)]
pub enum CheckpointCommand {
    /// List the checkpoints.
    List { store: PathBuf },
    /// Describe a checkpoint: its envelope in full.
    Show { store: PathBuf, id: u64 },
    /// Read and check every object of a checkpoint, or of all.
    Verify { store: PathBuf, id: Option<u64> },
}
