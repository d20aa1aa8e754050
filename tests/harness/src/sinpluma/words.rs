//! Words, sentences and names.

use crate::random::Random;

const WORDS: [&str; 48] = [
    "pluma",
    "tinta",
    "night",
    "river",
    "papel",
    "letter",
    "window",
    "niño",
    "corazón",
    "winter",
    "Überraschung",
    "smörgås",
    "café",
    "naïve",
    "silence",
    "garden",
    "東京",
    "夜",
    "書く",
    "слово",
    "река",
    "λόγος",
    "שלום",
    "مرحبا",
    "🖋",
    "📓",
    "👩‍🚀",
    "train",
    "mother",
    "clock",
    "salt",
    "mirror",
    "ghost",
    "harbour",
    "lantern",
    "verse",
    "chapter",
    "margin",
    "comma",
    "echo",
    "thread",
    "orchard",
    "ladder",
    "smoke",
    "paper",
    "whisper",
    "bread",
    "moon",
];

/// What a careless copy breaks: quotes, escapes, line breaks, tabs, NUL, the end-of-dump marker, spaces at the end.
const TRAPS: [&str; 12] = [
    "it's \"quoted\" `here`",
    "back\\slash and \\N and \\n and \\",
    "line\nbreak",
    "carriage\r\nreturn",
    "tab\there",
    "a NUL \0 inside",
    "Ctrl-Z \u{1a} ends nothing",
    "spaces at the end   ",
    "percent % and under_score",
    "-- no comment; DROP TABLE nothing;",
    "line separator \u{2028} and BOM \u{feff}",
    "🏴‍☠️ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 e\u{301}",
];

const FIRST: [&str; 20] = [
    "Ana",
    "Béatrice",
    "Chidi",
    "Dag",
    "Élodie",
    "Fatima",
    "Göran",
    "Hana",
    "Íñigo",
    "Jun",
    "Kwame",
    "Lucía",
    "Mei",
    "Noor",
    "Olga",
    "Paulo",
    "Renée",
    "Søren",
    "Tomás",
    "Zoë",
];
const LAST: [&str; 16] = [
    "O'Neill",
    "García",
    "Müller",
    "Nguyễn",
    "Kowalski",
    "Şahin",
    "Dvořák",
    "Petrov",
    "田中",
    "Lindqvist",
    "d'Arcy",
    "Okafor",
    "Silva",
    "Haddad",
    "Smith-Jones",
    "Ñáñez",
];

/// A sentence of a few words; one in eight holds a trap.
pub(super) fn sentence(random: &mut Random) -> String {
    let length = 3 + random.below(9);
    let words: Vec<&str> = (0..length).map(|_| *random.pick(&WORDS)).collect();
    let mut text = words.join(" ");
    if random.once_in(8) {
        text.push(' ');
        text.push_str(random.pick::<&str>(&TRAPS));
    }
    text
}

/// Several sentences.
pub(super) fn paragraph(random: &mut Random) -> String {
    let sentences: Vec<String> = (0..=random.below(6)).map(|_| sentence(random)).collect();
    sentences.join(". ")
}

/// A person's name.
pub(super) fn name(random: &mut Random) -> String {
    format!("{} {}", random.pick(&FIRST), random.pick(&LAST))
}

/// One word.
pub(super) fn word(random: &mut Random) -> &'static str {
    random.pick::<&str>(&WORDS)
}
