//! A profile as the kernel takes it: a program of classic BPF, made once and loaded as often as asked.
//! Calls are found by halving their numbers, so the program is short, and so is the time to load it.
//! What it cannot express it does not approximate: there is then no program.
//!
//! libseccomp would need to be linked into every shim, and `seccompiler` knows one action a filter; the
//! meaning is checked here instead, by running the program over every call beside the profile itself,
//! and in the shim's tests against the reviewed table of what each call answers.

use libc::sock_filter as Instruction;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::{ARCH, ENOSYS, EPERM};

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
/// x32 calls have this bit; no other call is as high.
const FOREIGN_FROM: u32 = 0x4000_0000;
/// A tracer has asked to skip the call.
const SKIPPED: u32 = u32::MAX;
/// Calls above are newer than the reviewed list: absent, so that libc falls back. runc answers the
/// same above the last call of its libseccomp.
const LAST_KNOWN: u32 = 456;

const NR: u32 = 0;
const AUDIT: u32 = 4;
const ARGS: u32 = 16;

/// What a call is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Whatever its arguments are.
    Always(u32),
    /// The first of these whose conditions all hold, else the last.
    When(Vec<(Vec<Condition>, u32)>, u32),
}

/// `(argument & mask) == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    index: u32,
    mask: u64,
    value: u64,
}

/// A program for `seccomp(SECCOMP_SET_MODE_FILTER)`.
#[derive(Clone)]
pub struct Filter(Vec<Instruction>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} instructions)", self.0.len())
    }
}

impl Filter {
    /// The profile's program; `None` if the profile says something that is not expressed here.
    #[must_use]
    pub fn of(profile: &LinuxSeccomp) -> Option<Self> {
        let plain = profile.flags().as_ref().is_none_or(Vec::is_empty)
            && profile.listener_path().is_none()
            && profile.architectures().as_deref() == Some(&[ARCH]);
        let default = returned(profile.default_action(), profile.default_errno_ret())?;
        let calls = profile.syscalls().as_deref().unwrap_or_default();
        let ranges = ranges(&verdicts(default, calls).filter(|_| plain)?);
        let mut program = prologue();
        program.extend(halve(&ranges)?);
        (program.len() <= usize::from(libc::BPF_MAXINSNS as u16)).then_some(Self(program))
    }

    /// The instructions.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}

fn returned(action: LinuxSeccompAction, errno: Option<u32>) -> Option<u32> {
    match action {
        LinuxSeccompAction::ScmpActAllow => Some(libc::SECCOMP_RET_ALLOW),
        LinuxSeccompAction::ScmpActErrno => Some(libc::SECCOMP_RET_ERRNO | (errno.unwrap_or(EPERM) & 0xffff)),
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillProcess
        | LinuxSeccompAction::ScmpActKillThread => Some(libc::SECCOMP_RET_KILL_PROCESS),
        LinuxSeccompAction::ScmpActTrap
        | LinuxSeccompAction::ScmpActTrace
        | LinuxSeccompAction::ScmpActNotify
        | LinuxSeccompAction::ScmpActLog => None,
    }
}

/// The verdict on every call from 0 to [`LAST_KNOWN`].
fn verdicts(default: u32, rules: &[LinuxSyscall]) -> Option<Vec<Verdict>> {
    let mut all = vec![Verdict::Always(default); LAST_KNOWN as usize + 1];
    let mut named = vec![false; all.len()];
    for rule in rules {
        let action = returned(rule.action(), rule.errno_ret())?;
        let conditions = rule.args().iter().flatten().map(condition).collect::<Option<Vec<_>>>()?;
        for name in rule.names() {
            // A name this architecture does not have is no call of it.
            let Ok(number) = name.parse::<syscalls::Sysno>() else { continue };
            let number = usize::try_from(number.id()).ok()?;
            let Some(verdict) = all.get_mut(number) else { continue };
            *verdict = match (std::mem::replace(verdict, Verdict::Always(default)), conditions.is_empty()) {
                (Verdict::Always(_), true) if !named[number] => Verdict::Always(action),
                (Verdict::Always(_), false) if !named[number] => {
                    Verdict::When(vec![(conditions.clone(), action)], default)
                }
                (Verdict::When(mut cases, otherwise), false) => {
                    cases.push((conditions.clone(), action));
                    Verdict::When(cases, otherwise)
                }
                // Twice, with and without conditions: which one wins is not ours to guess.
                (Verdict::Always(_) | Verdict::When(..), _) => return None,
            };
            named[number] = true;
        }
    }
    Some(all)
}

fn condition(arg: &LinuxSeccompArg) -> Option<Condition> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6)?;
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => Some(Condition { index, mask: u64::MAX, value: arg.value() }),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Some(Condition { index, mask: arg.value(), value: arg.value_two().unwrap_or(0) & arg.value() })
        }
        LinuxSeccompOperator::ScmpCmpNe
        | LinuxSeccompOperator::ScmpCmpLt
        | LinuxSeccompOperator::ScmpCmpLe
        | LinuxSeccompOperator::ScmpCmpGe
        | LinuxSeccompOperator::ScmpCmpGt => None,
    }
}

/// Neighbours with the same verdict are one; each with the number it begins at.
fn ranges(all: &[Verdict]) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for (number, verdict) in (0u32..).zip(all) {
        if ranges.last().is_none_or(|(_, last)| last != verdict) {
            ranges.push((number, verdict.clone()));
        }
    }
    ranges.push((all.len() as u32, Verdict::Always(libc::SECCOMP_RET_ERRNO | ENOSYS)));
    ranges
}

/// One ABI; the call's number is in the accumulator afterwards.
fn prologue() -> Vec<Instruction> {
    vec![
        load(AUDIT),
        jump(libc::BPF_JEQ, AUDIT_ARCH, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NR),
        jump(libc::BPF_JGE, FOREIGN_FROM, 0, 3),
        jump(libc::BPF_JEQ, SKIPPED, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | ENOSYS),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
    ]
}

/// The program for some ranges: one is answered, several are halved.
fn halve(ranges: &[(u32, Verdict)]) -> Option<Vec<Instruction>> {
    if let [(_, verdict)] = ranges {
        return decide(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (from, _) = high.first()?;
    let (low, high) = (halve(low)?, halve(high)?);
    let mut program = match u8::try_from(low.len()) {
        Ok(far) => vec![jump(libc::BPF_JGE, *from, far, 0)],
        // A condition jumps 255 instructions at most.
        Err(_) => vec![jump(libc::BPF_JGE, *from, 0, 1), statement(libc::BPF_JMP | libc::BPF_JA, low.len() as u32)],
    };
    program.extend(low);
    program.extend(high);
    Some(program)
}

fn decide(verdict: &Verdict) -> Option<Vec<Instruction>> {
    match verdict {
        Verdict::Always(value) => Some(vec![answer(*value)]),
        Verdict::When(cases, otherwise) => {
            let mut program = Vec::new();
            for (conditions, value) in cases {
                program.extend(case(conditions, *value)?);
            }
            program.push(answer(*otherwise));
            Some(program)
        }
    }
}

/// Goes on after its end unless all conditions hold.
fn case(conditions: &[Condition], value: u32) -> Option<Vec<Instruction>> {
    let mut program = Vec::new();
    let mut tests = Vec::new();
    for c in conditions {
        for (half, shift) in [(0u32, 0u32), (4, 32)] {
            let (mask, wanted) = ((c.mask >> shift) as u32, (c.value >> shift) as u32);
            if mask == 0 {
                continue;
            }
            program.push(load(ARGS + 8 * c.index + half));
            if mask != u32::MAX {
                program.push(statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask));
            }
            tests.push(program.len());
            program.push(jump(libc::BPF_JEQ, wanted, 0, 0));
        }
    }
    program.push(answer(value));
    for at in tests {
        program[at].jf = u8::try_from(program.len() - at - 1).ok()?;
    }
    Some(program)
}

fn load(offset: u32) -> Instruction {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(value: u32) -> Instruction {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

fn statement(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
