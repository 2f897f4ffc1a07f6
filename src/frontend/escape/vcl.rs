//! VCL, after `vcc_Lexer` in `lib/libvcc/vcc_token.c` of Varnish 7.1.
//!
//! Strings are `"…"` on one line, and `{"…"}` and `"""…"""` that may go over several. None of them knows an escape: each
//! ends where its closing marks first come. `#` and `//` open a comment up to the line's end, `/*` one up to `*/` that
//! must not have another `/*` in it, `C{` opens C up to `}C`.

use super::{Piece, percent, pieces};

/// Encodes the marked values of a rendered VCL for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer =
        Writer { out: String::with_capacity(marked.len()), place: Place::Code, content: String::new(), after: false };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => writer.text(text),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.finish()
}

/// Where in the syntax the writer stands.
#[derive(Clone, Copy)]
enum Place {
    /// Between tokens, or in one that is no string.
    Code,
    /// In a comment up to the line's end.
    Line,
    /// In a comment up to `*/`.
    Block,
    /// In a string, which the template's author wrote so.
    Quoted(Form),
    /// In C.
    C,
}

/// How a string is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Triple,
    Braces,
    Short,
}

impl Form {
    /// In the order in which Varnish looks for their opening marks.
    const ALL: [Self; 3] = [Self::Triple, Self::Braces, Self::Short];

    const fn marks(self) -> (&'static str, &'static str) {
        match self {
            Self::Triple => ("\"\"\"", "\"\"\""),
            Self::Braces => ("{\"", "\"}"),
            Self::Short => ("\"", "\""),
        }
    }

    fn can_hold(self, content: &str) -> bool {
        match self {
            Self::Triple => !content.contains("\"\"\"") && !content.ends_with('"'),
            Self::Braces => !content.contains("\"}"),
            Self::Short => !content.contains(['"', '\r', '\n']),
        }
    }
}

struct Writer {
    out: String,
    place: Place,
    /// Of the string in which the writer stands, as it is to be read.
    content: String,
    /// A value that made a string of its own has just been written.
    after: bool,
}

impl Writer {
    /// Takes some of the template's own text.
    fn text(&mut self, mut rest: &str) {
        while !rest.is_empty() {
            rest = match self.place {
                Place::Code => self.code(rest),
                Place::Line => self.until(rest, "\n"),
                Place::Block => self.until(rest, "*/"),
                Place::C => self.until(rest, "}C"),
                Place::Quoted(form) => {
                    let (_, close) = form.marks();
                    let (content, after) = rest.split_once(close).map_or((rest, None), |(c, after)| (c, Some(after)));
                    self.content.push_str(content);
                    if after.is_some() {
                        self.close(form);
                        self.place = Place::Code;
                    }
                    after.unwrap_or_default()
                }
            };
        }
    }

    /// Takes one token, or a character of one, and returns what is left.
    fn code<'a>(&mut self, rest: &'a str) -> &'a str {
        if std::mem::take(&mut self.after) && !rest.starts_with(|c: char| c.is_ascii_whitespace() || ",;)".contains(c))
        {
            self.out.push(' ');
        }
        if let Some(form) = Form::ALL.into_iter().find(|form| rest.starts_with(form.marks().0)) {
            self.place = Place::Quoted(form);
            return &rest[form.marks().0.len()..];
        }
        let in_word = self.out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let len = match rest.as_bytes() {
            [b'/', b'*', ..] => {
                self.place = Place::Block;
                2
            }
            [b'C', b'{', ..] if !in_word => {
                self.place = Place::C;
                2
            }
            [b'#', ..] | [b'/', b'/', ..] => {
                self.place = Place::Line;
                1
            }
            _ => rest.chars().next().map_or(0, char::len_utf8),
        };
        let (token, after) = rest.split_at(len);
        self.out.push_str(token);
        after
    }

    /// Takes all up to and with the marks that end what the writer stands in, and returns what is left.
    fn until<'a>(&mut self, rest: &'a str, marks: &str) -> &'a str {
        let end = rest.find(marks).map(|at| at + marks.len());
        if end.is_some() {
            self.place = Place::Code;
        }
        let (inside, after) = rest.split_at(end.unwrap_or(rest.len()));
        self.out.push_str(inside);
        after
    }

    /// Takes one value.
    fn value(&mut self, value: &str) {
        match self.place {
            Place::Code => {
                // Lest it join what stands before it.
                if !self.out.ends_with(|c: char| c.is_ascii_whitespace() || "(=,".contains(c)) {
                    self.out.push(' ');
                }
                self.content.push_str(value);
                self.close(Form::Short);
                self.after = true;
            }
            Place::Quoted(_) => self.content.push_str(value),
            Place::Line => self.encode(value, char::is_control),
            // Nothing would keep `*` and `/` apart.
            Place::Block if value.is_empty() => self.out.push(' '),
            Place::Block => {
                // Neither `/*` nor `*/` may come about, with what stands beside the value neither.
                let count = value.chars().count();
                let mut index = 0;
                let after_star = self.out.ends_with('*');
                self.encode(value, |c| {
                    index += 1;
                    c.is_control() || c == '*' || (c == '/' && (index == count || (index == 1 && after_star)))
                });
            }
            Place::C => self.encode(value, |c| !c.is_ascii_alphanumeric()),
        }
    }

    /// Writes the string that has come to its end, the author's way if that can hold it.
    fn close(&mut self, form: Form) {
        let content = std::mem::take(&mut self.content).replace('\0', "%00");
        let forms = [form, Form::Short, Form::Braces, Form::Triple];
        let (form, content) = match forms.into_iter().find(|form| form.can_hold(&content)) {
            Some(form) => (form, content),
            None => (Form::Braces, content.replace("\"}", "%22}")),
        };
        let (open, close) = form.marks();
        self.out.extend([open, &content, close]);
    }

    fn encode(&mut self, value: &str, mut must_be: impl FnMut(char) -> bool) {
        for c in value.chars() {
            if must_be(c) { percent(&mut self.out, c) } else { self.out.push(c) }
        }
    }

    /// A string that the template leaves open is for Varnish to refuse.
    fn finish(mut self) -> String {
        if let Place::Quoted(form) = self.place {
            self.out.push_str(form.marks().0);
            let open = self.content.replace('"', "%22");
            self.out.push_str(&open);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{END, MARKERS, VALUE, hostile};
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Token {
        Text(String),
        Other(char),
    }

    /// What Varnish's lexer sees, by the order of its rules: comments are gone.
    fn tokens(text: &str) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let delimited = [("\"\"\"", "\"\"\"", true), ("{\"", "\"}", true), ("\"", "\"", false), ("C{", "}C", true)];
            if c.is_ascii_whitespace() {
                rest = &rest[1..];
            } else if c == '#' || rest.starts_with("//") {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let (comment, after) = comment.split_once("*/").ok_or("an open comment")?;
                if comment.contains("/*") {
                    return Err("a comment in a comment".to_owned());
                }
                rest = after;
            } else if let Some((open, close, lines)) = delimited.into_iter().find(|(open, ..)| rest.starts_with(open)) {
                let (content, after) = rest[open.len()..].split_once(close).ok_or(format!("an open {open}"))?;
                if !lines && content.contains(['\r', '\n']) {
                    return Err("a string over several lines".to_owned());
                }
                assert_ne!(open, "C{", "no value makes C");
                tokens.push(Token::Text(content.to_owned()));
                rest = after;
            } else {
                tokens.push(Token::Other(c));
                rest = &rest[c.len_utf8()..];
            }
        }
        Ok(tokens)
    }

    fn rendered(template: &str, value: &str) -> String {
        write(&template.replace('@', &format!("{VALUE}{value}{END}")))
    }

    /// The template's tokens, with the value in place of `@` in its strings, or of the string that `@` becomes.
    fn expected(template: &str, value: &str) -> Vec<Token> {
        let quoted = template.replace("«@»", " \"@\" ");
        let mut tokens = tokens(&quoted).expect("a good template");
        for token in &mut tokens {
            if let Token::Text(text) = token {
                *text = text.replace('@', value);
            }
        }
        tokens
    }

    /// Templates in which `«@»` stands for a value outside a string.
    const TEMPLATES: &[&str] = &[
        "set x = «@»;",
        "f(«@», «@»);",
        "x{«@»}",
        "set x = \"a\"«@»\"b\";",
        "C«@»{ }",
        "set x = \"@\";",
        "set x = \"a@b@\" \"c\";",
        "set x = {\"@\"};",
        "set x = {\"a\n\"@ } \"b\"};",
        "set x = \"\"\"@\"\"\";",
        "set x = \"\"\"a\"@b\"\"\" {\"}\"};",
        "# @\nset x;",
        "a; // @ \"\nset x;",
        "/* @ */ set x;",
        "/*@*/ set x; /**@/@*/ y",
    ];

    #[test]
    fn strings_are_written_as_plainly_as_can_be() {
        for (value, expected) in [
            ("plain", "set x = \"plain\";"),
            ("a\"b", "set x = {\"a\"b\"};"),
            ("a\nb", "set x = {\"a\nb\"};"),
            ("a\"}", "set x = \"\"\"a\"}\"\"\";"),
            ("\"}\"\"\"", "set x = {\"%22}\"\"\"\"};"),
            ("a\0", "set x = \"a%00\";"),
        ] {
            assert_eq!(rendered("set x = \"@\";", value), expected);
            assert_eq!(rendered("set x = @;", value), expected);
        }
        assert_eq!(rendered("# @", "a\nb"), "# a%0Ab");
        assert_eq!(rendered("/* @ */", "*/ x /"), "/* %2A/ x %2F */");
        assert_eq!(rendered("/* *@/ */", ""), "/* * / */");
        assert_eq!(rendered("sub a{@}", "v"), "sub a{ \"v\" }");
        assert_eq!(rendered("C{ @ }C", "}C\""), "C{ %7DC%22 }C");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_value_reads_back_wherever_it_stands(v in hostile::value(), t in proptest::sample::select(TEMPLATES)) {
            let v = v.replace(MARKERS, "").replace('@', "");
            let text = rendered(&t.replace("«@»", "@"), &v);
            let read = tokens(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text:?}")))?;
            // What no kind of string can hold, and what ends one in C.
            let readable = |v: &str| v.replace('\0', "%00").replace("\"}", "%22}");
            let flat = |tokens: Vec<Token>| {
                let flat = |token| match token {
                    Token::Text(text) => Token::Text(readable(&text)),
                    other => other,
                };
                tokens.into_iter().map(flat).collect::<Vec<_>>()
            };
            prop_assert_eq!(flat(read), flat(expected(t, &v)), "{:?}", text);
        }
    }
}
