//! Which lane a flow goes by: a program that the kernel runs for each frame that it gives to the TAP.
//!
//! A flow must keep its lane, or packets of it overtake each other; and new flows shall go by lanes that were opened since.
//! So the program has a table of many slots. A flow's addresses and ports pick a slot; a slot that carried nothing for
//! [`PAUSE`] takes one of the lanes that are open now, and keeps it as long as it carries: whatever was sent by the lane
//! before has arrived by then. Which lane the answers come by plays no part, as it would in the kernel's own choice.

/// A slot that carried nothing for so long, in nanoseconds, may change its lane: longer than frames wait in a lane.
pub const PAUSE: i32 = 20_000_000;

/// Slots of the table. Flows that share one share its lane.
pub const SLOTS: u32 = 8_192;

/// Bytes of a slot: when it carried last (u64, nanoseconds), its lane (u32), and padding.
pub const SLOT_LEN: u32 = 16;

/// One instruction of the kernel's machine (linux/bpf.h, `struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Registers: what a call returns, its arguments, those that a call leaves alone, and the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R6: u8 = 6;
const R7: u8 = 7;
const R8: u8 = 8;
const R9: u8 = 9;
const STACK: u8 = 10;

/// Helpers of the kernel.
const LOOK_UP: i32 = 1;
const TIME: i32 = 5;

const IPV4: i32 = 0x0800;
const IPV6: i32 = 0x86dd;
/// Where things stand in a frame.
const ETHERTYPE: i32 = 12;
const V4: i32 = 14;
const V4_FRAGMENT: i32 = V4 + 6;
const V4_PROTOCOL: i32 = V4 + 9;
const V4_SOURCE: i32 = V4 + 12;
const V4_DESTINATION: i32 = V4 + 16;
const V6_NEXT: i32 = 14 + 6;
const V6_SOURCE: i32 = 14 + 8;
const V6_PORTS: i32 = 14 + 40;

/// Odd multipliers that spread what they multiply over all bits (the golden ratio, and two primes of xxHash).
const SPREAD: [i32; 3] = [
    0x9e37_79b1_u32.cast_signed(),
    0x85eb_ca77_u32.cast_signed(),
    0x27d4_eb2f,
];

/// Protocols with ports in their first four bytes: TCP, UDP, SCTP.
const WITH_PORTS: [i32; 3] = [6, 17, 132];

/// A program in the making; jumps name what they lead to.
#[derive(Default)]
struct Program {
    instructions: Vec<Instruction>,
    labels: Vec<(Label, usize)>,
    jumps: Vec<(usize, Label)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    V4,
    Ports6,
    Ports4,
    Slot,
    Keep,
    Open,
    Nothing,
}

impl Program {
    fn add(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction {
            code,
            registers: from << 4 | to,
            offset,
            immediate,
        });
    }

    /// `to = from`, and `to = immediate`.
    fn copy(&mut self, to: u8, from: u8) {
        self.add(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: u8, immediate: i32) {
        self.add(0xb7, to, 0, 0, immediate);
    }

    /// 64-bit arithmetic with an immediate.
    fn with(&mut self, operation: u8, to: u8, immediate: i32) {
        self.add(operation | 0x07, to, 0, 0, immediate);
    }

    /// 64-bit arithmetic with a register.
    fn with_register(&mut self, operation: u8, to: u8, from: u8) {
        self.add(operation | 0x0f, to, from, 0, 0);
    }

    /// `R0 =` the word (4), half word (2) or byte (1) of the frame at `at`; ends the program with 0 past its end.
    fn load(&mut self, bytes: u8, at: i32) {
        let size = match bytes {
            4 => 0x00,
            2 => 0x08,
            _ => 0x10,
        };
        self.add(0x20 | size, R0, 0, 0, at);
    }

    /// Four bytes of a register to memory.
    fn store(&mut self, to: u8, offset: i16, from: u8) {
        self.add(STORE, to, from, offset, 0);
    }

    fn jump(&mut self, code: u8, register: u8, immediate: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.add(code, register, 0, 0, immediate);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.instructions.len()));
    }

    /// `R0 =` where the value of the key on the stack is in a map.
    fn look_up(&mut self, map: i32) {
        // A 64-bit constant takes two instructions; source 1 says that it is a map's descriptor.
        self.add(0x18, R1, 1, 0, map);
        self.add(0, 0, 0, 0, 0);
        self.copy(R2, STACK);
        self.with(ADD, R2, -4);
        self.add(CALL, 0, 0, 0, LOOK_UP);
        self.jump(IF_EQUAL, R0, 0, Label::Nothing);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let target = self.labels.iter().find(|(name, _)| *name == label);
            let target = target.map_or(0, |(_, target)| *target);
            let distance = i16::try_from(target).ok().zip(i16::try_from(at).ok());
            self.instructions[at].offset = distance.map_or(0, |(target, at)| target - at - 1);
        }
        self.instructions
    }
}

const ADD: u8 = 0x00;
const SUB: u8 = 0x10;
const MUL: u8 = 0x20;
const AND: u8 = 0x50;
const SHIFT_LEFT: u8 = 0x60;
const SHIFT_RIGHT: u8 = 0x70;
const MOD: u8 = 0x90;
const XOR: u8 = 0xa0;
/// From memory into a register, and back: 4 bytes, or 8.
const FETCH: u8 = 0x61;
const FETCH_LONG: u8 = 0x79;
const STORE: u8 = 0x63;
const STORE_LONG: u8 = 0x7b;
/// Into R0 the word of the frame at a register and an immediate.
const LOAD_BEHIND: u8 = 0x40;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const ALWAYS: u8 = 0x05;
const IF_EQUAL: u8 = 0x15;
const IF_OTHER: u8 = 0x55;
const IF_LESS: u8 = 0xa5;

/// The program, with the descriptors of its two maps: [`SLOTS`] slots, and one number (u32), the lanes that are open.
pub fn program(slots: i32, open: i32) -> Vec<Instruction> {
    let mut program = Program::default();
    let p = &mut program;
    // Loads from the frame want the frame in R6. R7 becomes the flow's number.
    p.copy(R6, R1);
    p.set(R7, 0);
    p.load(2, ETHERTYPE);
    p.jump(IF_EQUAL, R0, IPV4, Label::V4);
    // Whatever is no IP goes by the first lane, and is refused there.
    p.jump(IF_OTHER, R0, IPV6, Label::Nothing);
    for word in 0..8 {
        p.load(4, V6_SOURCE + 4 * word);
        p.with(MUL, R7, SPREAD[0]);
        p.with_register(ADD, R7, R0);
    }
    p.load(1, V6_NEXT);
    for protocol in WITH_PORTS {
        p.jump(IF_EQUAL, R0, protocol, Label::Ports6);
    }
    p.jump(ALWAYS, 0, 0, Label::Slot);
    p.label(Label::Ports6);
    p.load(4, V6_PORTS);
    p.with(MUL, R7, SPREAD[1]);
    p.with_register(ADD, R7, R0);
    p.jump(ALWAYS, 0, 0, Label::Slot);

    p.label(Label::V4);
    p.load(4, V4_SOURCE);
    p.with_register(ADD, R7, R0);
    p.with(MUL, R7, SPREAD[0]);
    p.load(4, V4_DESTINATION);
    p.with_register(ADD, R7, R0);
    // Fragments have no ports but the first, and all of a packet keep together.
    p.load(2, V4_FRAGMENT);
    p.with(AND, R0, 0x3fff);
    p.jump(IF_OTHER, R0, 0, Label::Slot);
    p.load(1, V4_PROTOCOL);
    for protocol in WITH_PORTS {
        p.jump(IF_EQUAL, R0, protocol, Label::Ports4);
    }
    p.jump(ALWAYS, 0, 0, Label::Slot);
    p.label(Label::Ports4);
    p.load(1, V4);
    p.with(AND, R0, 0x0f);
    p.with(SHIFT_LEFT, R0, 2);
    p.copy(R8, R0);
    // The word behind the header, R8 bytes long.
    p.add(LOAD_BEHIND, R0, R8, 0, V4);
    p.with(MUL, R7, SPREAD[1]);
    p.with_register(ADD, R7, R0);

    p.label(Label::Slot);
    p.with(MUL, R7, SPREAD[2]);
    p.copy(R8, R7);
    p.with(SHIFT_RIGHT, R8, 29);
    p.with_register(XOR, R7, R8);
    p.copy(R8, R7);
    p.with(AND, R8, SLOTS.cast_signed() - 1);
    p.store(STACK, -4, R8);
    p.look_up(slots);
    p.copy(R9, R0);
    p.add(CALL, 0, 0, 0, TIME);
    p.copy(R8, R0);
    // R9: the slot; R8: the time; R1: when it carried last.
    p.add(FETCH_LONG, R1, R9, 0, 0);
    p.copy(R2, R8);
    p.with_register(SUB, R2, R1);
    p.jump(IF_LESS, R2, PAUSE, Label::Keep);
    p.set(R1, 0);
    p.store(STACK, -4, R1);
    p.look_up(open);
    p.add(FETCH, R1, R0, 0, 0);
    p.jump(IF_OTHER, R1, 0, Label::Open);
    p.set(R1, 1);
    p.label(Label::Open);
    p.copy(R2, R7);
    p.with(SHIFT_RIGHT, R2, 16);
    p.with(AND, R2, 0x00ff_ffff);
    p.with_register(MOD, R2, R1);
    p.store(R9, 8, R2);
    p.label(Label::Keep);
    p.add(STORE_LONG, R9, R8, 0, 0);
    p.add(FETCH, R0, R9, 8, 0);
    p.add(EXIT, 0, 0, 0, 0);
    p.label(Label::Nothing);
    p.set(R0, 0);
    p.add(EXIT, 0, 0, 0, 0);
    program.finish()
}
