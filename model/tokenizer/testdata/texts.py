"""Texts that tokenizers are compared on."""
import glob, json, os, sysconfig

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "àâçéèêëîïôùûüÿñæœßøåäö", "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώ",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя", "אבגדהוזחטיכלמנסעפצקרשת", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह",
    "কখগঘঙচছজঝঞটঠডঢণতথদধনপফবভমযরলশষসহ", "กขคงจฉชซญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหอฮ", "あいうえおかきくけこさしすせそたちつてとアイウエオカキクケコ",
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长",
    "가나다라마바사아자차카타파하한국어", "ᄀᄂ다ᅢᅣᆨᆫᆮ", "ႠႡႢႣაბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ", "ԱԲԳԴԵԶԷԸԹաբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ",
    "ሀሁሂሃሄህሆለሉሊላሌልሎሐ", "𐐀𐐁𐐂𐐃𐐄𐐅𐐆𐐇", "𝐀𝐁𝐂𝑎𝑏𝑐𝒜𝒞𝔄𝔅𝕬𝖆", "ｆｕｌｌｗｉｄｔｈ", "ǅǈǋʰʲˠⁿªº", "ꙀꙁꙂꙃꚀꚁ", "ไใโเแา", "ཀཁགངཅཆཇཉ",
]
DIGITS = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "ⅠⅡⅢⅣⅤⅵⅶ", "½¼¾⅓²³¹", "①②③❶❷", "〇一二三", "𝟎𝟏𝟐𝟑", "๑๒๓"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\n ", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029",
          "\u202f", "\u3000", "\u200b", "\ufeff", "\x1c", "\x1f", "        "]
MARKS = ["\u0301", "\u0300", "\u0308", "\u0323", "\u093f", "\u094d", "\u05b7", "\u064e", "\u20dd", "\u0345", "\u1161", "\u11a8", "\u3099"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪🇯🇵", "❤️", "☃", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🧑🏿‍🚀", "©", "™", "→", "∑", "█▓", "…", "—", "“”", "‘’"]
CONTRACTIONS = ["'s", "'S", "'ſ", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'Ve", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "'l", "'r", "'v", "'x", "’s", "'"]
PUNCTUATION = list("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "!?", "//", "==", "->", "();", "\\frac{", "$$", "<|", "|>"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<think>", "</think>",
           "<tool_call>", "<|reserved_special_token_10|>", "<|im_", "<repo_name>", "<|<|im_end|>"]
CODE = ["def f(x):\n    return x*x\n", "for (int i = 0; i < n; ++i) {\n\t\ta[i] += b[i];\n}\n", "if err != nil {\n\treturn nil, fmt.Errorf(\"x: %w\", err)\n}\n\n",
        "SELECT * FROM t WHERE id IN (1,2,3);", "<div class=\"a\">\r\n  <p>Hi</p>\r\n</div>", "x = {'a': [1, 2.5e-10], \"b\": None}", "#include <stdio.h>\n\n\n"]


def controls():
    return [chr(c) for c in list(range(32)) + [127] + list(range(128, 160))]


def word(r):
    alphabet = r.choice(ALPHABETS)
    return r.choice(r.choice(ALPHABETS)) + "".join(r.choice(alphabet) for _ in range(r.randint(0, 9)))


def atom(r):
    k = r.random()
    if k < 0.28:
        return r.choice(SPACES) if r.random() < 0.4 else " "
    if k < 0.55:
        return word(r)
    if k < 0.65:
        return "".join(r.choices(r.choice(DIGITS), k=r.randint(1, 7)))
    if k < 0.74:
        return r.choice(PUNCTUATION)
    if k < 0.80:
        return r.choice(CONTRACTIONS)
    if k < 0.85:
        return r.choice(EMOJI)
    if k < 0.90:
        return r.choice(MARKS)
    if k < 0.93:
        return r.choice(controls())
    if k < 0.95:
        return r.choice(SPECIAL)
    if k < 0.97:
        return r.choice(CODE)
    while True:
        c = r.randrange(0x110000) if r.random() < 0.3 else r.randrange(0x3000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def fuzz(r, n):
    return ["".join(atom(r) for _ in range(r.randint(0, 12))) for _ in range(n)]


def points():
    """Every code point of the planes in use, beside different neighbours, in short texts."""
    out = []
    for base in [*range(0, 0x40000, 64), *range(0xE0000, 0xE0200, 64), *range(0x10FF00, 0x110000, 64)]:
        chars = [chr(c) for c in range(base, base + 64) if not 0xD800 <= c < 0xE000]
        if chars:
            out += ["".join(chars), "a".join(chars), " ".join(chars), "".join(c + "7\u0301\n" for c in chars)]
    return out


def mixed(r):
    """More than a megabyte: every kind of atom in long texts, runs, code of Python's own library."""
    out = ["".join(atom(r) for _ in range(r.randint(200, 2000))) for _ in range(250)]
    for unit in ["a", " ", "\n", "\r\n", "\t", "1", "=", "é", "字", "😀", "ab", " a", "\u0301", "-", "<|", "'s", "Ġ", " \n"]:
        out += [unit * n for n in (1, 2, 3, 5, 16, 47, 48, 49, 50, 128, 1000, 5000)]
    out.append("xyzzy" * 20000)
    for f in sorted(glob.glob(os.path.join(sysconfig.get_paths()["stdlib"], "[a-d]*.py")))[:25]:
        with open(f, encoding="utf-8") as h:
            out.append(h.read())
    return out


def data(directory):
    """Every line of every JSONL file, and the strings in it."""
    out = []
    for f in sorted(glob.glob(os.path.join(directory, "*.jsonl"))):
        with open(f, encoding="utf-8") as h:
            for line in h:
                out.append(line.rstrip("\n"))
                out += [v for v in json.loads(line).values() if isinstance(v, str)]
    return out
