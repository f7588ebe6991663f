//! From JSON to a command: every field is checked, and all problems are reported at once.
//!
//! ```text
//! {"price_cents":-1,"stok":5}   ->   name is missing
//!                                    price_cents is -1, the least is 0
//!                                    stok is not known here
//! ```
//!
//! Only [`Form::check`] creates a command, from value objects that check themselves, so an invalid command
//! cannot exist.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::values::Field;

/// The problem of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field, as a path: `items[2].quantity`.
    pub field: String,
    /// The problem.
    pub problem: String,
}

/// A command, or a part of one, that can be read from a form.
pub trait FromForm: Sized {
    /// Reads every field before it returns with `?`, so that all errors are recorded.
    fn from_form(form: &mut Form) -> Option<Self>;
}

/// The fields of a JSON object that have not been read yet, and the problems of the others.
#[derive(Debug)]
pub struct Form {
    path: String,
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Form {
    /// Reads a whole form.
    ///
    /// # Errors
    /// All problems; never empty.
    pub fn check<T: FromForm>(form: Value) -> Result<T, Vec<FieldError>> {
        let mut errors = Vec::new();
        let read = object(form, "form", String::new(), &mut errors);
        match read {
            Some(command) if errors.is_empty() => Ok(command),
            _ => Err(errors),
        }
    }

    /// A required field.
    pub fn field<T: Field>(&mut self, name: &str) -> Option<T> {
        match self.take(name) {
            Some(value) => self.read(name, &value),
            None => self.refuse(name, "is missing"),
        }
    }

    /// An optional field.
    pub fn optional<T: Field>(&mut self, name: &str) -> Option<Option<T>> {
        match self.take(name) {
            Some(value) => self.read(name, &value).map(Some),
            None => Some(None),
        }
    }

    /// An object in a field.
    pub fn nested<T: FromForm>(&mut self, name: &str) -> Option<T> {
        match self.take(name) {
            Some(value) => object(value, name, format!("{}{name}.", self.path), &mut self.errors),
            None => self.refuse(name, "is missing"),
        }
    }

    /// A list of objects in a field: at least one, at most this many.
    pub fn list<T: FromForm>(&mut self, name: &str, most: usize) -> Option<Vec<T>> {
        let items = match self.take(name) {
            Some(Value::Array(items)) => items,
            Some(_) => return self.refuse(name, "is not a list"),
            None => return self.refuse(name, "is missing"),
        };
        if items.is_empty() {
            return self.refuse(name, "is empty");
        }
        if items.len() > most {
            return self.refuse(name, format!("has {} entries, the most is {most}", items.len()));
        }
        let mut read = Vec::with_capacity(items.len());
        let mut whole = true;
        for (index, item) in items.into_iter().enumerate() {
            let name = format!("{name}[{index}]");
            match object(item, &name, format!("{}{name}.", self.path), &mut self.errors) {
                Some(item) => read.push(item),
                None => whole = false,
            }
        }
        whole.then_some(read)
    }

    /// Records a problem of a field.
    pub fn refuse<T>(&mut self, name: &str, problem: impl Into<String>) -> Option<T> {
        let field = format!("{}{name}", self.path);
        self.errors.push(FieldError { field, problem: problem.into() });
        None
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn read<T: Field>(&mut self, name: &str, value: &Value) -> Option<T> {
        match T::read(value) {
            Ok(read) => Some(read),
            Err(problem) => self.refuse(name, problem),
        }
    }
}

/// Reads an object and records its problems, including fields that were not read.
fn object<T: FromForm>(value: Value, name: &str, path: String, errors: &mut Vec<FieldError>) -> Option<T> {
    let Value::Object(fields) = value else {
        let field = path.strip_suffix('.').unwrap_or(name).to_owned();
        errors.push(FieldError { field, problem: "is not an object".into() });
        return None;
    };
    let mut form = Form { path, fields, errors: Vec::new() };
    let read = T::from_form(&mut form);
    for name in std::mem::take(&mut form.fields).keys() {
        form.refuse::<()>(name, "is not known here");
    }
    assert!(read.is_some() || !form.errors.is_empty(), "a form is refused with a reason");
    errors.append(&mut form.errors);
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Cents, Name, Quantity};
    use serde_json::json;

    #[derive(Debug)]
    struct Line {
        quantity: Quantity,
    }

    impl FromForm for Line {
        fn from_form(form: &mut Form) -> Option<Self> {
            Some(Self { quantity: form.field("quantity")? })
        }
    }

    #[derive(Debug)]
    struct Sheet {
        name: Name,
        price: Option<Cents>,
        lines: Vec<Line>,
    }

    impl FromForm for Sheet {
        fn from_form(form: &mut Form) -> Option<Self> {
            let (name, price) = (form.field("name"), form.optional("price_cents"));
            let lines = form.list("lines", 3);
            Some(Self { name: name?, price: price?, lines: lines? })
        }
    }

    fn errors(form: Value) -> Vec<String> {
        let errors = Form::check::<Sheet>(form).unwrap_err();
        errors.into_iter().map(|error| format!("{} {}", error.field, error.problem)).collect()
    }

    #[test]
    fn a_form_without_a_mistake_is_read() {
        let sheet: Sheet = Form::check(json!({"name": "a", "lines": [{"quantity": 2}]})).unwrap();
        assert_eq!((sheet.name.as_str(), sheet.price), ("a", None));
        assert_eq!(sheet.lines[0].quantity.get(), 2);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let form = json!({
            "name": "", "price_cents": -1, "stok": 5,
            "lines": [{"quantity": 0, "colour": "red"}, {"quantity": 1}, 7],
        });
        assert_eq!(
            errors(form),
            [
                "name is empty",
                "price_cents is -1, the least is 0",
                "lines[0].quantity is 0, the least is 1",
                "lines[0].colour is not known here",
                "lines[2] is not an object",
                "stok is not known here",
            ]
        );
        assert_eq!(errors(json!([])), ["form is not an object"]);
        assert_eq!(errors(json!({"lines": []})), ["name is missing", "lines is empty"]);
        assert_eq!(errors(json!({"name": null, "lines": {}})), ["name is missing", "lines is not a list"]);
    }
}
