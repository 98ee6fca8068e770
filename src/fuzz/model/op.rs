//! The operations of a program, and how each is made of eight bytes.

use crate::fs::fault::{Effect, Fault, Op as FileOp};
use crate::fuzz::model::plain::{Change, FAMILIES, Verb};

/// Bytes of an operation.
pub const OP_BYTES: usize = 8;

/// Key groups of the keys.
pub const KEY_GROUPS: u16 = 8;

/// What a program may do: everything that the interface of a database offers, and what may befall it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Write(Change),
    Batch { changes: Vec<Change>, sync: bool },
    Update { family: usize, key: Vec<u8>, value: Vec<u8>, how: u8 },
    Get { family: usize, key: Vec<u8> },
    MultiGet { family: usize, keys: Vec<Vec<u8>> },
    GetOperands { family: usize, key: Vec<u8> },
    OpenReader { family: usize },
    Read { reader: u8, key: Vec<u8>, then: u8 },
    TakeSnapshot,
    DropSnapshot { snapshot: u8 },
    OpenScan { family: usize, start: Vec<u8>, end: Vec<u8>, how: u8, snapshot: u8 },
    MoveScan { scan: u8, how: u8, key: Vec<u8> },
    DropScan { scan: u8 },
    CheckAll,
    CreateFamily { family: usize },
    DropFamily { family: usize },
    Flush { family: usize },
    FlushAll,
    Compact { family: usize, start: Vec<u8>, end: Vec<u8> },
    Step { choice: u8, steps: u8 },
    WaitIdle,
    PauseCompactions { pause: bool },
    SyncWal,
    Look { family: usize, start: Vec<u8>, end: Vec<u8> },
    Verify,
    BeginCheckpoint,
    DropCheckpoint { checkpoint: u8 },
    Import { checkpoint: u8, cut: u8 },
    Save { checkpoint: u8 },
    Restore { saved: u8, first: u16, last: u16, go_on: bool },
    Rescale { parallelism: u8 },
    ForgetSaved,
    LetGo,
    Close { change_log: bool, fault: Option<Fault> },
    Kill { fault: Option<Fault> },
    PowerCut { keep: u8, seed: u8, fault: Option<Fault> },
    PlanFault(Fault),
    FillDisk { bytes: u32 },
    LosePower { after: u8 },
    Repair,
}

impl Op {
    /// The variant's name.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
    }

    /// Does its outcome, as far as a caller sees it, depend on nothing but the operations before?
    /// Those whose do not depend on options, or on the state of the disk.
    pub fn is_plain(&self) -> bool {
        !matches!(
            self,
            Op::PauseCompactions { .. }
                | Op::SyncWal
                | Op::Close { .. }
                | Op::Kill { .. }
                | Op::PowerCut { .. }
                | Op::PlanFault(_)
                | Op::FillDisk { .. }
                | Op::LosePower { .. }
                | Op::Restore { .. }
                | Op::Rescale { .. }
        )
    }

    /// Every eight bytes are an operation; `number` makes its values its own.
    pub fn decode(bytes: [u8; OP_BYTES], number: u32) -> Op {
        let [kind, rest @ ..] = bytes;
        let mut args = Args { bytes: &rest, number };
        let a = &mut args;
        match kind {
            0..=79 => Op::Write(a.change()),
            80..=95 => {
                let shape = a.byte();
                let changes = (0..shape % 4).map(|_| a.change()).collect();
                Op::Batch { changes, sync: shape >= 0xc0 }
            }
            96..=103 => {
                Op::Update { family: a.family(), key: a.key(), value: a.value(), how: a.byte() }
            }
            104..=113 => Op::Get { family: a.family(), key: a.key() },
            114..=117 => {
                Op::MultiGet { family: a.family(), keys: (0..6).map(|_| a.key()).collect() }
            }
            118..=121 => Op::GetOperands { family: a.family(), key: a.key() },
            122..=123 => Op::OpenReader { family: a.family() },
            124..=131 => Op::Read { reader: a.byte(), key: a.key(), then: a.byte() },
            132..=136 => Op::TakeSnapshot,
            137..=138 => Op::DropSnapshot { snapshot: a.byte() },
            139..=144 => Op::OpenScan {
                family: a.family(),
                start: a.key(),
                end: a.key(),
                how: a.byte(),
                snapshot: a.byte(),
            },
            145..=162 => Op::MoveScan { scan: a.byte(), how: a.byte(), key: a.key() },
            163..=164 => Op::DropScan { scan: a.byte() },
            165..=167 => Op::CheckAll,
            168..=170 => Op::CreateFamily { family: a.family() },
            171..=172 => Op::DropFamily { family: a.family() },
            173..=178 => Op::Flush { family: a.family() },
            179..=180 => Op::FlushAll,
            181..=184 => Op::Compact { family: a.family(), start: a.key(), end: a.key() },
            185..=202 => Op::Step { choice: a.byte(), steps: a.byte() % 8 },
            203 => Op::WaitIdle,
            204..=205 => Op::PauseCompactions { pause: a.byte().is_multiple_of(2) },
            206..=208 => Op::SyncWal,
            209 => Op::Look { family: a.family(), start: a.key(), end: a.key() },
            210 => Op::Verify,
            211..=214 => Op::BeginCheckpoint,
            215 => Op::DropCheckpoint { checkpoint: a.byte() },
            _ => a.rare(kind),
        }
    }
}

/// The bytes of an operation, taken from the front; zeros behind their end.
struct Args<'a> {
    bytes: &'a [u8],
    number: u32,
}

impl Args<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    fn family(&mut self) -> usize {
        usize::from(self.byte()) % FAMILIES
    }

    fn key(&mut self) -> Vec<u8> {
        key(self.byte())
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.byte() {
            byte @ ..200 => usize::from(byte % 20),
            byte @ ..250 => usize::from(byte) * 3,
            _ => 5000,
        };
        let mut value = self.number.to_string().into_bytes();
        value.resize(value.len() + len, b'.');
        value
    }

    fn change(&mut self) -> Change {
        let shape = self.byte();
        let verb = match shape / 3 % 10 {
            0..=4 => Verb::Put(self.key(), self.value()),
            5 | 6 => Verb::Delete(self.key()),
            7 | 8 => Verb::Merge(self.key(), [b",", &self.value()[..]].concat()),
            _ => Verb::DeleteRange(self.key(), self.key()),
        };
        Change { family: usize::from(shape) % FAMILIES, verb }
    }

    /// What happens to a whole database.
    fn rare(&mut self, kind: u8) -> Op {
        match kind {
            216..=219 => Op::Import { checkpoint: self.byte(), cut: self.byte() % 9 },
            220..=222 => Op::Save { checkpoint: self.byte() },
            223 => Op::ForgetSaved,
            224..=226 => {
                let (a, b) = (u16::from(self.byte()), u16::from(self.byte()));
                let (a, b) = (a % KEY_GROUPS, b % KEY_GROUPS);
                let go_on = self.byte().is_multiple_of(2);
                Op::Restore { saved: self.byte(), first: a.min(b), last: a.max(b), go_on }
            }
            227 => Op::Rescale { parallelism: 1 + self.byte() % KEY_GROUPS as u8 },
            228 => Op::LetGo,
            229..=230 => {
                Op::Close { change_log: self.byte().is_multiple_of(4), fault: self.some_fault() }
            }
            231..=232 => Op::Kill { fault: self.some_fault() },
            233..=240 => {
                Op::PowerCut { keep: self.byte(), seed: self.byte(), fault: self.some_fault() }
            }
            241..=247 => Op::PlanFault(self.fault(true)),
            248 => Op::FillDisk { bytes: u32::from(self.byte()) * 8 },
            249 => Op::LosePower { after: self.byte() % 32 },
            _ => Op::Repair,
        }
    }

    fn fault(&mut self, open: bool) -> Fault {
        let (op, effect) = (self.byte(), self.byte());
        let effects = [Effect::Io, Effect::NoSpace, Effect::Short, Effect::Flip];
        // What is flipped while a database is opened looks like a torn log: not a single fault.
        let effect = effects[usize::from(effect) % if open { 4 } else { 3 }];
        let skip = u64::from(self.byte() % 16);
        let (sticky, suffix) = (self.byte(), self.byte());
        let fault = Fault::new(FileOp::ALL[usize::from(op) % FileOp::ALL.len()], skip);
        let fault = if sticky.is_multiple_of(3) { fault.sticky() } else { fault };
        let suffixes = ["", "", "", ".log", ".sst", ".manifest"];
        fault.effect(effect).suffix(suffixes[usize::from(suffix) % suffixes.len()])
    }

    fn some_fault(&mut self) -> Option<Fault> {
        self.byte().is_multiple_of(3).then(|| self.fault(false))
    }
}

/// One of 256 keys: eight groups, and in each runs of zeros and ones, common prefixes and some long
/// keys.
pub fn key(byte: u8) -> Vec<u8> {
    const LETTERS: [u8; 4] = [0, b'a', b'b', 0xff];
    let letter = |shift: u8| LETTERS[usize::from(byte >> shift & 3)];
    let mut key = vec![0, byte >> 5];
    match byte & 0x1f {
        0 => {}
        1..4 => key.push(letter(0)),
        4..16 => key.extend([letter(2), letter(0)]),
        16..28 => key.extend([letter(2), letter(0), letter(3)]),
        n => key.resize([255, 256, 300, 1200][usize::from(n - 28)], b'x'),
    }
    key
}
