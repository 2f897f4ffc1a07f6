//! VCL, after `vcc_Lexer` in `lib/libvcc/vcc_token.c` of Varnish 7.1.
//!
//! Strings are `"…"` on one line, and `{"…"}` and `"""…"""`, which may contain line breaks. None of them knows escapes: each
//! ends at the first closing mark. `#` and `//` open a comment up to the end of the line, `/*` one up to `*/` that must not
//! contain another `/*`, and `C{` opens inline C up to `}C`.

use super::pieces::{Piece, percent, pieces};

/// Encodes the marked values of a rendered VCL for their places.
pub(super) fn write(marked: &str) -> String {
    let mut writer = Writer {
        out: String::with_capacity(marked.len()),
        place: Place::Code,
        content: String::new(),
        after_value: false,
    };
    for piece in pieces(marked) {
        match piece {
            Piece::Text(text) => writer.text(text),
            Piece::Value(value) | Piece::Literal(value) => writer.value(value),
        }
    }
    writer.finish()
}

/// The writer's place in the syntax.
#[derive(Clone, Copy)]
enum Place {
    /// Between tokens, or in a token other than a string.
    Code,
    /// In a comment up to the end of the line.
    Line,
    /// In a comment up to `*/`.
    Block,
    /// In a string that the template wrote in this form.
    Quoted(Form),
    /// In inline C.
    C,
}

/// The form in which a string is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Triple,
    Braces,
    Short,
}

impl Form {
    /// In the order in which Varnish tries their opening marks.
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
    /// The content of the string in which the writer is, as Varnish should read it.
    content: String,
    /// Whether the last thing written is a string that a value became.
    after_value: bool,
}

impl Writer {
    /// Writes the template's own text.
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

    /// Writes a token or a part of one, and returns the rest.
    fn code<'a>(&mut self, rest: &'a str) -> &'a str {
        if std::mem::take(&mut self.after_value)
            && !rest.starts_with(|c: char| c.is_ascii_whitespace() || ",;)".contains(c))
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

    /// Writes everything up to and including the marks that end the writer's place, and returns the rest.
    fn until<'a>(&mut self, rest: &'a str, marks: &str) -> &'a str {
        let end = rest.find(marks).map(|at| at + marks.len());
        if end.is_some() {
            self.place = Place::Code;
        }
        let (inside, after) = rest.split_at(end.unwrap_or(rest.len()));
        self.out.push_str(inside);
        after
    }

    /// Writes one value.
    fn value(&mut self, value: &str) {
        match self.place {
            Place::Code => {
                // It must not join what is before it.
                if !self.out.ends_with(|c: char| c.is_ascii_whitespace() || "(=,".contains(c)) {
                    self.out.push(' ');
                }
                self.content.push_str(value);
                self.close(Form::Short);
                self.after_value = true;
            }
            Place::Quoted(_) => self.content.push_str(value),
            Place::Line => self.encode(value, char::is_control),
            // An empty value between `*` and `/` must keep them apart.
            Place::Block if value.is_empty() => self.out.push(' '),
            Place::Block => {
                // Neither `/*` nor `*/` may result, also not together with the characters beside the value.
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

    /// Writes the string that has ended, in the template's own form if that can hold it.
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

    fn encode(&mut self, value: &str, mut is_encoded: impl FnMut(char) -> bool) {
        for c in value.chars() {
            if is_encoded(c) { percent(&mut self.out, c) } else { self.out.push(c) }
        }
    }

    /// A string that the template leaves open stays open, and Varnish refuses the file.
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

    use super::super::hostile;
    use super::super::pieces::{END, MARKERS, VALUE};
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Token {
        Text(String),
        Other(char),
    }

    /// The tokens that Varnish's lexer finds, without comments.
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
                assert_ne!(open, "C{", "no value opens inline C");
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

    /// The tokens of a template in which `@` stands for the value, in strings or as a string of its own.
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
    fn strings_have_the_simplest_form_that_holds_them() {
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
            // What no form of string can hold.
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
