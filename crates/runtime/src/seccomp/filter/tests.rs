//! The program, run here, against what the profile says.

use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;

use super::*;
use crate::seccomp::profile;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | EPERM;
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | ENOSYS;

/// Runs a program as the kernel would.
fn run(filter: &Filter, audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&audit.to_le_bytes());
    for (n, arg) in args.iter().enumerate() {
        data[16 + 8 * n..24 + 8 * n].copy_from_slice(&arg.to_le_bytes());
    }
    let (program, mut at, mut a) = (filter.instructions(), 0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        match u32::from(i.code) {
            0x20 => {
                let from = i.k as usize;
                a = u32::from_le_bytes(data[from..from + 4].try_into().expect("four bytes"));
            }
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += usize::from(if a == i.k { i.jt } else { i.jf }),
            0x35 => at += usize::from(if a >= i.k { i.jt } else { i.jf }),
            0x06 => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the profile says, read rule by rule.
fn meant(profile: &LinuxSeccomp, number: u32, args: [u64; 6]) -> u32 {
    if number == SKIPPED {
        return ABSENT;
    }
    if number >= FOREIGN_FROM {
        return KILL;
    }
    if number > LAST_KNOWN {
        return ABSENT;
    }
    let name = syscalls::Sysno::new(number as usize).map(|call| call.name());
    for rule in profile.syscalls().iter().flatten() {
        let holds = |arg: &LinuxSeccompArg| {
            let got = args[arg.index()];
            match arg.op() {
                LinuxSeccompOperator::ScmpCmpEq => got == arg.value(),
                LinuxSeccompOperator::ScmpCmpMaskedEq => got & arg.value() == arg.value_two().expect("has two"),
                LinuxSeccompOperator::ScmpCmpNe
                | LinuxSeccompOperator::ScmpCmpLt
                | LinuxSeccompOperator::ScmpCmpLe
                | LinuxSeccompOperator::ScmpCmpGe
                | LinuxSeccompOperator::ScmpCmpGt => panic!("{:?}", arg.op()),
            }
        };
        if rule.names().iter().any(|n| Some(n.as_str()) == name) && rule.args().iter().flatten().all(holds) {
            return returned(rule.action(), rule.errno_ret()).expect("is known");
        }
    }
    returned(profile.default_action(), profile.default_errno_ret()).expect("is known")
}

fn ours() -> (LinuxSeccomp, Filter) {
    let profile = profile(&["SYS_CHROOT".into()]).expect("builds");
    let filter = Filter::of(&profile).expect("is expressible");
    (profile, filter)
}

#[test]
fn every_call_is_answered_as_the_profile_says() {
    let (profile, filter) = ours();
    for number in (0..2_000).chain([FOREIGN_FROM, FOREIGN_FROM + 39, u32::MAX - 1, u32::MAX]) {
        for first in [0, 1, 2, 8, 10, 16, 38, 40, 0x2_0000, 0x1000_0000, 0xffff_ffff, (1 << 32) | 2, u64::MAX] {
            let args = [first, 1, 0, 0, 0, 0];
            assert_eq!(run(&filter, AUDIT_ARCH, number, args), meant(&profile, number, args), "{number} {first:#x}");
        }
    }
}

#[test]
fn another_architecture_is_killed() {
    let (_, filter) = ours();
    for audit in [0x4000_0003, 0, 0xc000_00b7] {
        assert_eq!(run(&filter, audit, 39, [0; 6]), KILL);
    }
}

#[test]
fn the_well_known_ones_are_what_everybody_expects() {
    let (_, filter) = ours();
    let answer = |number, first| run(&filter, AUDIT_ARCH, number, [first, 0, 0, 0, 0, 0]);
    let table = [(0, 0, ALLOW), (165, 0, REFUSED), (435, 0, ABSENT), (41, 2, ALLOW), (41, 40, REFUSED)];
    for (number, first, want) in table {
        assert_eq!(answer(number, first), want, "{number}");
    }
    assert_eq!(answer(56, 0x1000_0011), REFUSED, "clone of a user namespace");
    assert_eq!(answer(41, (1 << 32) | 40), REFUSED, "a family in disguise");
}

#[test]
fn the_program_is_short() {
    assert!(ours().1.instructions().len() < 400, "{:?}", ours().1);
}

#[test]
fn what_is_not_expressed_gives_no_program() {
    let with = |key: &str, value: serde_json::Value| {
        let mut document = serde_json::to_value(ours().0).expect("is JSON");
        document[key] = value;
        Filter::of(&serde_json::from_value(document).expect("is a profile"))
    };
    assert!(with("architectures", serde_json::json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])).is_none());
    assert!(with("defaultAction", serde_json::json!("SCMP_ACT_NOTIFY")).is_none());
    assert!(with("flags", serde_json::json!(["SECCOMP_FILTER_FLAG_LOG"])).is_none());
    let twice = serde_json::json!([
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
    ]);
    assert!(with("syscalls", twice).is_none());
    let greater = serde_json::json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_GT"}]}]);
    assert!(with("syscalls", greater).is_none());
    assert!(with("defaultErrnoRet", serde_json::json!(1)).is_some(), "the control");
}

proptest! {
    #[test]
    fn arguments_are_compared_on_all_their_bits(number in 0u32..500, args in any::<[u64; 6]>(), small in 0u64..64) {
        let (profile, filter) = ours();
        prop_assert_eq!(run(&filter, AUDIT_ARCH, number, args), meant(&profile, number, args));
        let args = [small, args[1], args[2], args[3], args[4], args[5]];
        prop_assert_eq!(run(&filter, AUDIT_ARCH, number, args), meant(&profile, number, args));
    }
}
