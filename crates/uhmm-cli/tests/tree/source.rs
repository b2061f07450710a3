//! What a source file names, as far as paths tell: no comments, no texts, and nothing that is for tests alone.

/// A part of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    /// `::`
    Of,
    Sign(char),
}

/// A path from the crate's root on, without that.
pub(crate) type Names = Vec<String>;

/// What a file has.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// What it names.
    pub(crate) named: Vec<Names>,
    /// What it uses by another name, or shows by it: the name, and what it is.
    pub(crate) known_as: Vec<(String, Names)>,
    /// The modules in files of their own: their paths, and their files, of which there may be several, where
    /// those are said.
    pub(crate) modules: Vec<(Names, Vec<String>)>,
    /// The macros that it defines.
    pub(crate) macros: Vec<String>,
}

impl Source {
    /// Reads the file of a module.
    pub(crate) fn read(text: &str, module: &[String]) -> Self {
        let tokens = tokens(text);
        let mut reader = Reader { tokens: &tokens, at: 0, source: Self::default() };
        reader.items(&mut module.to_vec());
        reader.source
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let letters = text.chars().collect::<Vec<_>>();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        let next = letters.get(at + 1).copied();
        match (letter, next) {
            ('/', Some('/')) => at = next_where(&letters, at, |end| letters[end] == '\n'),
            ('/', Some('*')) => at = end_of_comment(&letters, at),
            ('"', _) => {
                let (text, end) = quoted(&letters, at + 1);
                tokens.push(Token::Text(text));
                at = end;
            }
            // A letter, or else a lifetime, whose name is no path.
            ('\'', Some('\\')) => {
                at = next_where(&letters, at + 3, |end| letters[end] == '\'') + 1;
            }
            ('\'', _) if letters.get(at + 2) == Some(&'\'') => at += 3,
            (':', Some(':')) => {
                tokens.push(Token::Of);
                at += 2;
            }
            _ if is_of_word(letter) => {
                let end = next_where(&letters, at, |end| !is_of_word(letters[end]));
                let word = letters[at..end].iter().collect::<String>();
                at = end;
                if let Some(end) = raw(&letters, &word, end) {
                    tokens.push(Token::Text(String::new()));
                    at = end;
                } else {
                    tokens.push(Token::Word(word));
                }
            }
            _ => {
                if !letter.is_whitespace() {
                    tokens.push(Token::Sign(letter));
                }
                at += 1;
            }
        }
    }
    tokens
}

/// The next place, from `at` on, where something is so, or the end.
fn next_where(letters: &[char], at: usize, is_so: impl Fn(usize) -> bool) -> usize {
    (at..letters.len()).find(|&place| is_so(place)).unwrap_or(letters.len())
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn end_of_comment(letters: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < letters.len() {
        match (letters[at], letters.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

/// A text from behind its quotation mark on, and where it ends.
fn quoted(letters: &[char], mut at: usize) -> (String, usize) {
    let mut text = String::new();
    while let Some(&letter) = letters.get(at) {
        at += 1;
        match letter {
            '"' => break,
            '\\' => at += 1,
            _ => text.push(letter),
        }
    }
    (text, at)
}

/// Where a raw text ends that begins with `word`, if it is one.
fn raw(letters: &[char], word: &str, at: usize) -> Option<usize> {
    if !matches!(word, "r" | "br" | "cr") {
        return None;
    }
    let marks = letters[at..].iter().take_while(|&&letter| letter == '#').count();
    if letters.get(at + marks) != Some(&'"') {
        return None;
    }
    let ends = |end: usize| {
        letters[end] == '"' && letters[end + 1..].iter().take(marks).all(|&mark| mark == '#')
    };
    Some(next_where(letters, at + marks + 1, ends) + marks + 1)
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    source: Source,
}

impl<'t> Reader<'t> {
    fn token(&self, ahead: usize) -> Option<&'t Token> {
        self.tokens.get(self.at + ahead)
    }

    fn is_sign(&self, ahead: usize, sign: char) -> bool {
        self.token(ahead) == Some(&Token::Sign(sign))
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        self.word(ahead) == Some(word)
    }

    fn word(&self, ahead: usize) -> Option<&'t str> {
        match self.token(ahead) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// Reads what is in a module, up to the brace that ends it.
    fn items(&mut self, module: &mut Names) {
        let mut depth = 0;
        let mut said = Vec::new();
        while let Some(token) = self.token(0) {
            match token {
                Token::Sign('#')
                    if self.is_sign(1, '[') || self.is_sign(1, '!') && self.is_sign(2, '[') =>
                {
                    let is_inner = self.is_sign(1, '!');
                    let attribute = self.attribute();
                    said.extend(files(attribute).map(str::to_owned));
                    if is_for_tests(attribute) {
                        if is_inner {
                            return self.at = self.tokens.len();
                        }
                        self.skip_item();
                        said.clear();
                    }
                }
                Token::Sign('{') => {
                    depth += 1;
                    self.at += 1;
                }
                Token::Sign('}') if depth == 0 => return,
                Token::Sign('}') => {
                    depth -= 1;
                    self.at += 1;
                }
                Token::Word(word) if word == "mod" => {
                    self.at += 1;
                    self.module(module, std::mem::take(&mut said));
                }
                Token::Word(word) if word == "use" => {
                    self.at += 1;
                    self.tree(module, &[]);
                }
                Token::Word(word) if word == "macro_rules" && self.is_sign(1, '!') => {
                    self.source.macros.extend(self.word(2).map(str::to_owned));
                    self.at += 2;
                }
                Token::Word(_) => self.path(module),
                // A path of another crate, or of a type.
                Token::Of => self.at += 2,
                Token::Text(_) | Token::Sign(_) => self.at += 1,
            }
        }
    }

    /// Reads a module's name, and what is in it if that is here.
    fn module(&mut self, module: &mut Names, said: Vec<String>) {
        let Some(name) = self.word(0).map(str::to_owned) else { return };
        module.push(name);
        if self.is_sign(1, ';') {
            self.source.modules.push((module.clone(), said));
            self.at += 2;
        } else if self.is_sign(1, '{') {
            self.at += 2;
            self.items(module);
            self.at += 1;
        }
        module.pop();
    }

    /// Reads the tokens of an attribute.
    fn attribute(&mut self) -> &'t [Token] {
        let start = if self.is_sign(1, '[') { self.at + 1 } else { self.at + 2 };
        let mut depth = 0;
        let mut end = start;
        while let Some(token) = self.tokens.get(end) {
            match token {
                Token::Sign('[') => depth += 1,
                Token::Sign(']') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            end += 1;
        }
        self.at = end + 1;
        &self.tokens[start + 1..end]
    }

    /// Skips the rest of an item's attributes, and the item.
    fn skip_item(&mut self) {
        let mut depth = 0;
        while let Some(token) = self.token(0) {
            let is_outside = depth == 0;
            match token {
                Token::Sign('(' | '[' | '{') => depth += 1,
                // What the item is in ends.
                Token::Sign(')' | ']' | '}') if is_outside => return,
                Token::Sign(')' | ']') => depth -= 1,
                Token::Sign('}') => {
                    depth -= 1;
                    if depth == 0 {
                        return self.at += 1;
                    }
                }
                Token::Sign(';' | ',') if is_outside => return self.at += 1,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reads a word, and the path that it begins if that says where it begins.
    fn path(&mut self, module: &[String]) {
        let is_path = self.word(0).is_some_and(says_where) && self.token(1) == Some(&Token::Of);
        let mut words = self.word(0).map(str::to_owned).into_iter().collect::<Names>();
        self.at += 1;
        while is_path && self.token(0) == Some(&Token::Of) {
            let Some(word) = self.word(1) else { break };
            words.push(word.to_owned());
            self.at += 2;
        }
        if is_path {
            self.source.named.push(resolved(&words, module));
        }
    }

    /// Reads what is used, behind `before`.
    fn tree(&mut self, module: &[String], before: &[String]) {
        let mut words = before.to_vec();
        loop {
            if self.is_sign(0, '{') {
                self.at += 1;
                while self.token(0).is_some() && !self.is_sign(0, '}') {
                    self.tree(module, &words);
                    if self.is_sign(0, ',') {
                        self.at += 1;
                    }
                }
                return self.at += 1;
            }
            // All that there is, where it is no word.
            words.extend(self.word(0).map(str::to_owned));
            self.at += 1;
            if self.token(0) != Some(&Token::Of) {
                break;
            }
            self.at += 1;
        }
        let names = resolved(&words, module);
        let mut name = names.last().cloned();
        if self.is_word(0, "as") {
            name = self.word(1).map(str::to_owned);
            self.at += 2;
        }
        self.source.known_as.extend(name.map(|name| (name, names.clone())));
        self.source.named.push(names);
    }
}

/// Whether a path that begins with `word` says where it begins.
fn says_where(word: &str) -> bool {
    matches!(word, "crate" | "self" | "super")
}

/// What `words` name in a module, from the root on. What is another crate's is taken for the module's own.
fn resolved(words: &[String], module: &[String]) -> Names {
    let mut names = module.to_vec();
    for word in words {
        match word.as_str() {
            "crate" => names.clear(),
            "self" => {}
            "super" => drop(names.pop()),
            word => names.push(word.to_owned()),
        }
    }
    names
}

/// The files that an attribute says a module has, in one case or another.
fn files(attribute: &[Token]) -> impl Iterator<Item = &str> {
    attribute.windows(3).filter_map(|tokens| match tokens {
        [Token::Word(name), Token::Sign('='), Token::Text(file)] if name == "path" => {
            Some(file.as_str())
        }
        _ => None,
    })
}

/// Whether what an attribute stands before is there in tests alone.
fn is_for_tests(attribute: &[Token]) -> bool {
    match attribute {
        [Token::Word(name), Token::Sign('('), rest @ ..] if name == "cfg" => {
            holds(rest, &mut 0) == Some(false)
        }
        _ => false,
    }
}

/// Whether a condition holds where nothing is tested, as far as that can be said.
fn holds(tokens: &[Token], at: &mut usize) -> Option<bool> {
    let Some(Token::Word(name)) = tokens.get(*at) else { return None };
    *at += 1;
    match tokens.get(*at) {
        Some(Token::Sign('=')) => {
            *at += 2;
            return None;
        }
        Some(Token::Sign('(')) => *at += 1,
        _ => return (name == "test").then_some(false),
    }
    let mut parts = Vec::new();
    while !matches!(tokens.get(*at), None | Some(Token::Sign(')'))) {
        parts.push(holds(tokens, at));
        if tokens.get(*at) == Some(&Token::Sign(',')) {
            *at += 1;
        }
    }
    *at += 1;
    let all_are = |value| parts.iter().all(|part| *part == Some(value));
    match name.as_str() {
        "not" => parts.first().copied().flatten().map(|part| !part),
        "all" if parts.contains(&Some(false)) => Some(false),
        "any" if parts.contains(&Some(true)) => Some(true),
        "all" => all_are(true).then_some(true),
        "any" => all_are(false).then_some(false),
        _ => None,
    }
}
