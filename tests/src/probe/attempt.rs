//! Attempts at a container's walls, made by one static program: a test runs it in a container, where it
//! must fail, and on the host, where it must not. Compiled by the tests with the standard library alone.
//!
//! * `call NR ARG…` makes one system call and prints `ok N` or `errno N`. An argument is a number,
//!   `s:TEXT`, `b:N` (N zero bytes) or `o:PATH` (a descriptor of it).
//! * `int80` makes a 32-bit call and prints `ok` if it lives to.
//! * `handle PATH` prints the handle of a file; `open-handle MOUNT TYPE HEX` reads a file by its handle.
//! * `connect NAME` connects to an abstract socket.
//! * `overwrite SECONDS` opens for writing what other processes were executed from, once they have ended.
//! * `swap SECONDS PATH PATH` exchanges two names over and over.
//! * `setcap PATH HEX` gives a file capabilities.
//! * `who` prints effective user and group, and what capabilities it has and may have.
//! * `read PATH` prints a file. `peek PID` reads another process's memory, where there is nothing (errno 14).

use std::{
    env,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixStream},
    },
    process::exit,
    time::{Duration, Instant},
};

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["call", number, args @ ..] => call(number.parse().expect("a number"), args),
        ["int80"] => int80(),
        ["handle", path] => handle(path),
        ["open-handle", mount, kind, hex] => open_handle(mount, kind.parse().expect("a number"), hex),
        ["connect", name] => connect(name),
        ["overwrite", seconds] => overwrite(for_seconds(seconds)),
        ["swap", seconds, one, other] => swap(for_seconds(seconds), one, other),
        ["who"] => who(),
        ["read", path] => tell(fs::read_to_string(path).map(|text| text.trim().to_owned())),
        ["peek", pid] => peek(pid.parse().expect("a number")),
        ["setcap", path, hex] => setcap(path, u64::from_str_radix(hex, 16).expect("hex")),
        _ => exit(2),
    }
}

fn for_seconds(text: &str) -> Instant {
    Instant::now() + Duration::from_secs_f64(text.parse().expect("seconds"))
}

fn told(got: i64) -> io::Result<i64> {
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got) }
}

fn tell(outcome: io::Result<impl std::fmt::Display>) {
    match outcome {
        Ok(value) => println!("ok {value}"),
        Err(error) => println!("errno {}", error.raw_os_error().unwrap_or(-1)),
    }
}

fn call(number: i64, args: &[&str]) {
    let (mut texts, mut buffers, mut files) = (Vec::new(), Vec::new(), Vec::new());
    let mut given = [0_i64; 6];
    for (place, arg) in given.iter_mut().zip(args) {
        *place = match arg.split_once(':') {
            Some(("s", text)) => {
                texts.push(CString::new(text).expect("no NUL"));
                texts[texts.len() - 1].as_ptr() as i64
            }
            Some(("b", size)) => {
                buffers.push(vec![0_u8; size.parse().expect("a size")]);
                buffers.last_mut().expect("just pushed").as_mut_ptr() as i64
            }
            Some(("o", path)) => match File::open(path) {
                Ok(file) => {
                    files.push(file);
                    i64::from(files[files.len() - 1].as_raw_fd())
                }
                Err(error) => return tell(Err::<u8, _>(error)),
            },
            _ => arg.parse().expect("a number"),
        };
    }
    let [a, b, c, d, e, f] = given;
    let got = unsafe { syscall(number, a, b, c, d, e, f) };
    // clone(56) and clone3(435): the child has nothing to say.
    if got == 0 && matches!(number, 56 | 435) {
        unsafe { syscall(60, 0_i64) };
    }
    tell(told(got));
}

fn int80() {
    let mut answer: i64 = 20; // getpid
    unsafe { std::arch::asm!("int 0x80", inout("rax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _) };
    tell(told(answer).map(|_| "alive"));
}

const AT_FDCWD: i64 = -100;
const HANDLE_MAX: usize = 128;

/// `struct file_handle`: size, type, bytes.
fn handle(path: &str) {
    let path = CString::new(path).expect("no NUL");
    let mut handle = vec![0_u8; 8 + HANDLE_MAX];
    handle[..4].copy_from_slice(&(HANDLE_MAX as u32).to_ne_bytes());
    let mut mount = 0_i32;
    let got = unsafe { syscall(303, AT_FDCWD, path.as_ptr(), handle.as_mut_ptr(), &raw mut mount, 0_i64) };
    let word = |at: usize| u32::from_ne_bytes(handle[at..at + 4].try_into().expect("four bytes"));
    tell(told(got).map(|_| {
        let hex: String = handle[8..8 + word(0) as usize].iter().map(|b| format!("{b:02x}")).collect();
        format!("{} {hex}", word(4))
    }));
}

fn open_handle(mount: &str, kind: u32, hex: &str) {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    let mut handle = (bytes.len() as u32).to_ne_bytes().to_vec();
    handle.extend(kind.to_ne_bytes());
    handle.extend(bytes);
    let mount = match File::open(mount) {
        Ok(file) => file,
        Err(error) => return tell(Err::<u8, _>(error)),
    };
    let got = unsafe { syscall(304, i64::from(mount.as_raw_fd()), handle.as_mut_ptr(), 0_i64) };
    tell(told(got).and_then(|fd| {
        let mut text = String::new();
        unsafe { File::from_raw_fd(fd as i32) }.read_to_string(&mut text)?;
        Ok(text)
    }));
}

fn connect(name: &str) {
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    tell(UnixStream::connect_addr(&address).map(|_| "connected"));
}

/// CVE-2019-5736: holds every foreign program's file until nothing executes it any more, then writes to it.
fn overwrite(until: Instant) {
    let own = fs::read_link("/proc/self/exe").expect("ours");
    let mut held = std::collections::BTreeMap::new();
    while Instant::now() < until {
        for entry in fs::read_dir("/proc").expect("procfs").flatten() {
            let exe = entry.path().join("exe");
            let Ok(target) = fs::read_link(&exe) else { continue };
            if target != own && !held.contains_key(&target) && let Ok(file) = File::open(&exe) {
                held.insert(target, file);
            }
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    for (target, file) in held {
        let by = format!("/proc/self/fd/{}", file.as_raw_fd());
        match OpenOptions::new().append(true).open(by) {
            Ok(mut program) => {
                let wrote = program.write_all(b" ").is_ok();
                println!("opened {} {wrote}", target.display());
            }
            Err(error) => println!("held {} errno {}", target.display(), error.raw_os_error().unwrap_or(-1)),
        }
    }
    println!("watched");
}

fn swap(until: Instant, one: &str, other: &str) {
    let [one, other] = [one, other].map(|path| CString::new(path).expect("no NUL"));
    let mut swaps = 0_u64;
    while Instant::now() < until {
        let got = unsafe { syscall(316, AT_FDCWD, one.as_ptr(), AT_FDCWD, other.as_ptr(), 2_i64) };
        swaps += u64::from(got == 0);
    }
    println!("{swaps}");
}

/// A version 2 `security.capability` with the effective bit.
fn setcap(path: &str, mask: u64) {
    let words = [0x0200_0001_u32, mask as u32, 0, (mask >> 32) as u32, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = CString::new(path).expect("no NUL");
    let got = unsafe {
        syscall(188, path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr(), value.len() as i64, 0_i64)
    };
    tell(told(got));
}

fn who() {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_owned();
    let effective = |name| field(name).split_whitespace().nth(1).unwrap_or("?").to_owned();
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(|set| field(set).trim_start_matches('0').to_owned());
    println!("{}:{} {}", effective("Uid:"), effective("Gid:"), sets.join(","));
}

fn peek(pid: i64) {
    let mut byte = 0_u8;
    let (here, there) = ([&raw mut byte as u64, 1], [8_u64, 1]);
    tell(told(unsafe { syscall(310, pid, here.as_ptr(), 1_i64, there.as_ptr(), 1_i64, 0_i64) }));
}
