//! JSON in canonical form: two texts of the same value have the same bytes.
//!
//! The names of an object are sorted, blanks are left out, a string has an escape only where it must, and a
//! number is written as its digits and a power of ten. Numbers are never rounded: `1.0`, `1` and `10e-1` are
//! equal, and `0.1` and `0.1000000000000000055` are not.

use super::{check_json, units};

/// Whether both are JSON that every reader can read, with the same value.
pub(crate) fn is_same_json(one: &[u8], other: &[u8]) -> bool {
    one == other
        || (check_json(one).is_ok() && check_json(other).is_ok() && canonical(one) == canonical(other))
}

/// The canonical form of checked JSON.
fn canonical(data: &[u8]) -> Vec<u8> {
    let mut writer = Writer { data, at: 0, out: Vec::with_capacity(data.len()), objects: Vec::new() };
    writer.value();
    let Writer { out, objects, .. } = writer;
    if objects.iter().all(|object| object.is_sorted) {
        return out;
    }
    let mut sorted = Sorted { written: &out, objects: &objects, out: Vec::with_capacity(out.len()) };
    sorted.copy(0, out.len(), 0);
    sorted.out
}

/// Reads checked JSON, which has no errors and no deep nesting. Its output has the members of objects in the
/// order in which they were read.
struct Writer<'a> {
    data: &'a [u8],
    at: usize,
    out: Vec<u8>,
    /// In the order in which they begin.
    objects: Vec<Object>,
}

/// An object in the output.
#[derive(Default)]
struct Object {
    /// The begin and end of its members.
    from: usize,
    to: usize,
    /// Sorted by name.
    members: Vec<Member>,
    /// Whether its members were sorted by name as they were read.
    is_sorted: bool,
    /// The number of the next object that is not inside it.
    next: usize,
}

/// A member in the output: its begin, the end of its name, and its end.
struct Member {
    from: usize,
    name_to: usize,
    to: usize,
    /// The number of the first object in its value, if it contains one.
    object: usize,
}

/// Copies the output with the members of each object sorted. Each byte is copied once, at any depth.
struct Sorted<'a> {
    written: &'a [u8],
    objects: &'a [Object],
    out: Vec<u8>,
}

impl Sorted<'_> {
    /// Copies the bytes between these offsets. `object` is the number of the first object that begins there
    /// or later.
    fn copy(&mut self, mut from: usize, to: usize, mut object: usize) {
        while let Some(next) = self.objects.get(object).filter(|next| next.from < to) {
            self.out.extend_from_slice(&self.written[from..next.from]);
            for member in &next.members {
                self.copy(member.from, member.to, member.object);
            }
            (from, object) = (next.to, next.next);
        }
        self.out.extend_from_slice(&self.written[from..to]);
    }
}

impl Writer<'_> {
    fn peek(&self) -> u8 {
        self.data.get(self.at).copied().unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn value(&mut self) {
        self.skip_blanks();
        match self.peek() {
            b'"' => self.string(),
            b'[' => self.array(),
            b'{' => self.object(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                while self.peek().is_ascii_alphabetic() {
                    self.out.push(self.peek());
                    self.at += 1;
                }
            }
        }
    }

    /// Reads the opening bracket, or the comma before an element. Returns whether an element follows; if not,
    /// the closing bracket was read.
    fn has_element(&mut self, close: u8) -> bool {
        self.skip_blanks();
        if self.peek() == close {
            self.at += 1;
            return false;
        }
        self.at += 1;
        self.skip_blanks();
        let is_empty = self.peek() == close;
        self.at += usize::from(is_empty);
        !is_empty
    }

    fn array(&mut self) {
        self.out.push(b'[');
        while self.has_element(b']') {
            self.value();
            self.out.push(b',');
        }
        self.out.push(b']');
    }

    fn object(&mut self) {
        self.out.push(b'{');
        let number = self.objects.len();
        self.objects.push(Object::default());
        let begin = self.out.len();
        let mut members = Vec::new();
        while self.has_element(b'}') {
            let from = self.out.len();
            self.string();
            let name_to = self.out.len();
            self.skip_blanks();
            // The colon.
            self.at += 1;
            let object = self.objects.len();
            self.value();
            self.out.push(b',');
            members.push(Member { from, name_to, to: self.out.len(), object });
        }
        let name = |member: &Member| &self.out[member.from..member.name_to];
        let is_sorted = members.is_sorted_by(|one, next| name(one) <= name(next));
        if !is_sorted {
            members.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        }
        let next = self.objects.len();
        self.objects[number] = Object { from: begin, to: self.out.len(), members, is_sorted, next };
        self.out.push(b'}');
    }

    fn string(&mut self) {
        self.at += 1;
        let from = self.at;
        while self.peek() != b'"' {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        let text = &self.data[from..self.at];
        self.at += 1;
        self.out.push(b'"');
        if text.contains(&b'\\') {
            for letter in units(text).filter_map(char::from_u32) {
                if matches!(letter, '"' | '\\') {
                    self.out.push(b'\\');
                }
                self.out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
        } else {
            self.out.extend_from_slice(text);
        }
        self.out.push(b'"');
    }

    fn number(&mut self) {
        let from = self.at;
        while matches!(self.peek(), b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.data[from..self.at]).unwrap_or_default();
        let (sign, size) = text.strip_prefix('-').map_or(("", text), |size| ("-", size));
        let (decimal, power) = size.split_once(['e', 'E']).unwrap_or((size, "0"));
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
        let all = [whole, fraction].concat();
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0');
        let zeros = significant.len() - digits.len();
        if digits.is_empty() {
            self.out.push(b'0');
            return;
        }
        let shift = zeros as i64 - fraction.len() as i64;
        let number = match power.parse::<i64>().ok().and_then(|power| power.checked_add(shift)) {
            Some(power) => format!("{sign}{digits}e{power}"),
            // A power of ten beyond the range: such numbers are equal if their texts are.
            None => text.to_owned(),
        };
        self.out.extend_from_slice(number.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same(one: &str, other: &str) -> bool {
        let same = is_same_json(one.as_bytes(), other.as_bytes());
        assert_eq!(is_same_json(other.as_bytes(), one.as_bytes()), same, "{one} and {other}");
        same
    }

    #[test]
    fn another_text_of_the_same_value_is_the_same() {
        for (one, other) in [
            ("{}", " {\n} "),
            ("[]", "[ ]"),
            ("[[],{},1]", "[ [ ] , { } , 1 ]"),
            (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ] ,\t\"a\" : 1 }"),
            (r#"{"a":{"x":1,"y":2},"b":3}"#, r#"{"b":3,"a":{"y":2,"x":1}}"#),
            (r#"{"a":1,"ab":2,"":3}"#, r#"{"":3,"ab":2,"a":1}"#),
            (r#"{"a b":1,"c":2}"#, r#"{"c":2,"\u0061\u0020b":1}"#),
            ("1", "1.0"),
            ("1", "10e-1"),
            ("100", "1E+2"),
            ("0.5", "5e-1"),
            ("0", "-0.00e7"),
            ("12345678901234567890.5", "12345678901234567890.50"),
            ("1e-99999999999999999999", "1e-99999999999999999999"),
            (r#""a/ä😀\"\\\n""#, r#""\u0061\/ä\ud83d\ude00\u0022\u005C\u000a""#),
        ] {
            assert!(is_same(one, other), "{one} and {other}");
        }
    }

    #[test]
    fn another_value_is_not_the_same() {
        for (one, other) in [
            ("1", "\"1\""),
            ("1", "-1"),
            ("1", "10"),
            ("12345678901234567890", "12345678901234567891"),
            ("0.1", "0.1000000000000000055"),
            ("1e-99999999999999999999", "2e-99999999999999999999"),
            ("null", "false"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("[]", "{}"),
            ("[[1],2]", "[[1,2]]"),
            (r#"{"a":1}"#, r#"{"a":2}"#),
            (r#"{"a":1}"#, r#"{"A":1}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#),
            (r#"{"a":"b"}"#, r#"{"a\":\"b":1}"#),
            (r#"["a","b"]"#, r#"["a\",\"b"]"#),
            ("{\"a\":1,\"a\":1}", "{\"a\":1, \"a\":1}"),
            ("{", "{ "),
        ] {
            assert!(!is_same(one, other), "{one} and {other}");
        }
    }

    /// Nested objects of this depth, with their members in this order and this text beside each.
    fn nested(depth: usize, reversed: bool, text: &str) -> String {
        let inner = if depth == 0 { "1".to_owned() } else { nested(depth - 1, reversed, text) };
        let members = [format!("\"a\":{inner}"), format!("\"b\":\"{text}\""), "\"c\":{}".to_owned()];
        let [a, b, c] = &members;
        if reversed { format!("{{{c},{b},{a}}}") } else { format!("{{{a},{b},{c}}}") }
    }

    #[test]
    fn nested_objects_are_sorted_at_every_depth() {
        let (one, other) = (nested(30, false, "text"), nested(30, true, "text"));
        assert!(is_same(&one, &other));
        assert!(is_same(&format!("[{one},{{}},{other}]"), &format!("[{other},{{}},{one}]")));
        assert!(!is_same(&one, &nested(30, true, "other")));
        let sorted = r#"{"a"{"a"{"b"1e0,"c"[{"d"2e0,"e"3e0,},],},},"z"{"x"1e0,"y"2e0,},}"#;
        let data = r#"{"z":{"y":2,"x":1},"a":{"a":{"c":[{"e":3,"d":2}],"b":1}}}"#;
        assert_eq!(String::from_utf8(canonical(data.as_bytes())).unwrap(), sorted);
        let text = "x".repeat(10_000);
        // The deepest nesting that is allowed: 99 nested objects, with an empty one in each.
        assert!(is_same(&nested(98, false, &text), &nested(98, true, &text)));
    }

    #[test]
    fn the_deepest_and_the_largest_are_compared() {
        let deep = |blank: &str| format!("{}{blank}{}", "[".repeat(100), "]".repeat(100));
        assert!(is_same(&deep(""), &deep(" ")));
        let object = |numbers: &mut dyn Iterator<Item = u32>| {
            let members: Vec<String> = numbers.map(|number| format!("\"{number}\":{number}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(is_same(&object(&mut (0..100_000)), &object(&mut (0..100_000).rev())));
    }
}
