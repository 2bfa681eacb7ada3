//! Has the kernel run [`crate::steering`]'s program for a TAP (bpf(2), linux/if_tun.h).

use super::tap::Tap;
use crate::segment::ETHERNET_LEN;
use crate::steering::{self, Instruction, SLOT_LEN, SLOTS};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

nix::ioctl_read!(
    /// TUNSETSTEERINGEBPF: reads the descriptor of a program, whatever its name says.
    tun_set_steering, b'T', 224, libc::c_int);

/// Commands of bpf(2).
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOK_UP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_RUN: libc::c_long = 10;

const ARRAY: u32 = 2;
const SOCKET_FILTER: u32 = 1;

/// A program that is loaded, and how many lanes it gives flows to.
#[derive(Debug)]
pub struct Steering {
    program: OwnedFd,
    open: OwnedFd,
    _slots: OwnedFd,
}

/// The kernel's `union bpf_attr`, as far as it is used; what a command does not read is zero.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgRun {
    program: u32,
    returned: u32,
    data_in_len: u32,
    data_out_len: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Calls bpf(2).
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    #[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
    // SAFETY: the kernel reads and writes `size` bytes at the address of one of the structures above, which
    // begin as `union bpf_attr` does for their command; addresses in them lead to locals of the
    // callers, which outlive this call, and are as long as the command reads or writes there.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    let fd = Errno::result(result)?;
    RawFd::try_from(fd).map_err(io::Error::other)
}

/// The same for commands that make a descriptor.
fn bpf_fd<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    #[expect(
        unsafe_code,
        reason = "the number is the only name of a new descriptor"
    )]
    // SAFETY: the kernel has just made it for this process and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn array(value_size: u32, max_entries: u32) -> io::Result<OwnedFd> {
    let mut attributes = MapCreate {
        kind: ARRAY,
        key_size: 4,
        value_size,
        max_entries,
        ..MapCreate::default()
    };
    bpf_fd(MAP_CREATE, &mut attributes)
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = ProgLoad {
        kind: SOCKET_FILTER,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..ProgLoad::default()
    };
    bpf_fd(PROG_LOAD, &mut attributes)
}

impl Steering {
    /// Loads the program for a TAP with several queues; flows go by the first `open` of them.
    ///
    /// # Errors
    /// When the kernel takes no programs, or not for a TAP.
    pub fn load(tap: &Tap, open: u8) -> io::Result<Self> {
        let steering = Self::load_without_device(open)?;
        let mut program = steering.program.as_raw_fd();
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: the call reads one int through a pointer to a local that outlives it.
        unsafe { tun_set_steering(tap.as_fd().as_raw_fd(), &raw mut program) }?;
        Ok(steering)
    }

    /// The same for no TAP: [`Self::run`] tells what it would do.
    ///
    /// # Errors
    /// When the kernel takes no programs.
    pub fn load_without_device(open: u8) -> io::Result<Self> {
        let slots = array(SLOT_LEN, SLOTS)?;
        let lanes = array(4, 1)?;
        let instructions = steering::program(slots.as_raw_fd(), lanes.as_raw_fd());
        let steering = Self {
            program: load(&instructions)?,
            open: lanes,
            _slots: slots,
        };
        steering.set_open(open)?;
        Ok(steering)
    }

    /// Flows that begin go by the first `open` lanes from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_open(&self, open: u8) -> io::Result<()> {
        let (key, value) = (0_u32, u32::from(open));
        let mut attributes = MapElement {
            map: number(&self.open),
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_ref(&value) as u64,
            ..MapElement::default()
        };
        bpf(MAP_UPDATE, &mut attributes).map(drop)
    }

    /// How many lanes flows are given to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(&self) -> io::Result<u8> {
        let (key, mut value) = (0_u32, 0_u32);
        let mut attributes = MapElement {
            map: number(&self.open),
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_mut(&mut value) as u64,
            ..MapElement::default()
        };
        bpf(MAP_LOOK_UP, &mut attributes)?;
        u8::try_from(value).map_err(io::Error::other)
    }

    /// Runs the program on a frame: the lane that it goes by.
    ///
    /// # Errors
    /// When the kernel refuses; frames shorter than an Ethernet header, say.
    pub fn run(&self, frame: &[u8]) -> io::Result<u32> {
        // Run this way, a socket's program is not shown the Ethernet header, as it is where a TAP runs it.
        let frame = [&[0; ETHERNET_LEN], frame].concat();
        let mut attributes = ProgRun {
            program: number(&self.program),
            data_in_len: u32::try_from(frame.len()).map_err(io::Error::other)?,
            data_in: frame.as_ptr() as u64,
            ..ProgRun::default()
        };
        bpf(PROG_RUN, &mut attributes)?;
        Ok(attributes.returned)
    }
}
