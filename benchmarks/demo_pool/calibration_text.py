"""Hand-written question and answer pairs over many topics and languages."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("Why is the sky blue?", "Air scatters short wavelengths more than long ones, so blue light "
     "reaches us from every direction."),
    ("Name three prime numbers above 50.", "53, 59 and 61."),
    ("What is the derivative of x^3 - 4x?", "It is 3x^2 - 4."),
    ("Solve 5x + 7 = 32.", "5x = 25, so x = 5."),
    ("Write a haiku about fog.",
     "Gray wool on the hill\nthe church bell rings without tower\na cow "
     "coughs nearby"),
    ("Explain recursion to a child.", "Imagine a doll that holds a smaller doll, and so on, until "
     "one is too small to open. A function that calls itself does the same until the simple case."),
    ("Fix this: She don't likes tea.", "She doesn't like tea."),
    ("¿Cuál es la capital de Perú?", "La capital de Perú es Lima."),
    ("Wie viele Beine hat eine Spinne?", "Eine Spinne hat acht Beine."),
    ("Qu'est-ce qu'une éclipse ?", "C'est le passage d'un astre dans l'ombre d'un autre."),
    ("Che tempo fa oggi?", "Non posso vedere fuori, ma una previsione locale te lo dice."),
    ("Hoe laat vertrekt de laatste bus?",
     "Dat hangt af van de lijn; kijk op het bord bij de halte."),
    ("Quantas horas tem um dia?", "Um dia tem vinte e quatro horas."),
    ("Ile to jest siedem razy osiem?", "Siedem razy osiem to 56."),
    ("Сколько дней в неделе?", "Их семь."),
    ("一年有多少个月?", "一年有十二个月。"),
    ("水は何度で沸騰しますか。", "標準気圧では百度で沸騰します。"),
    ("كم عدد القارات؟", "هناك سبع قارات."),
    ("Bir hafta kaç gündür?", "Bir hafta yedi gündür."),
    ("Vad heter du?", "Jag är ett program och har inget namn."),
    ("What does `git status` show?", "It lists changed, staged and untracked files."),
    ("Reverse a string in Python.", "```python\ntext[::-1]\n```"),
    ("Write a C function that adds two integers.", "```c\nint add(int a, int b) {\n    return a + "
     "b;\n}\n```"),
    ("JavaScript: keep only even numbers.", "`numbers.filter(n => n % 2 === 0)`"),
    ("What is wrong with `SELECT name age FROM people`?", "A comma is missing: `SELECT name, age "
     "FROM people`."),
    ("Shell command to count the lines of a file?", "`wc -l file.txt`"),
    ("What is a hash table?",
     "A structure that finds a value by computing its place from the key."),
    ("Give me a synonym for 'brave'.", "Courageous."),
    ("Opposite of 'shallow'?", "Deep."),
    ("Plural of 'mouse'?", "Mice."),
    ("Convert 3 miles to kilometers.", "3 miles are about 4.83 kilometers."),
    ("What is 15% of 240?", "36."),
    ("How long should I boil an egg?", "Six minutes for a soft yolk, ten for a hard one."),
    ("Suggest a name for a boat.", "Second Wind."),
    ("I cannot sleep. Any ideas?", "Dim the lights early, leave the phone in another room, and get "
     "up at the same time every day."),
    ("How do vaccines work?", "They show the immune system a harmless part of a germ, so that it "
     "recognizes the real one faster."),
    ("Who wrote Don Quixote?", "Miguel de Cervantes."),
    ("When did the Berlin Wall fall?", "On 9 November 1989."),
    ("What is inflation?", "A general rise of prices, so that money buys less."),
    ("Difference between a lake and a pond?", "Size and depth: in a pond light usually reaches the "
     "bottom everywhere."),
    ("Give me three uses for an old newspaper.", "Clean windows, wrap gifts, line a plant pot."),
    ("Make a packing list for a weekend in the mountains.",
     "- boots\n- rain jacket\n- map\n- water\n"
     "- first aid kit\n- spare socks"),
    ("Write a polite reminder about an unpaid invoice.",
     "Dear Ms. Lund,\nour invoice 118 of May is "
     "still open. May I ask you to look into it this week?\nKind regards"),
    ("Tell me a joke.", "Why did the scarecrow get a prize? It was outstanding in its field."),
    ("Is a tomato a fruit?", "Botanically yes: it grows from the flower and holds the seeds."),
    ("If all bloops are razzies and all razzies are lazzies, are all bloops lazzies?",
     "Yes. Being a bloop implies being a razzy, and that implies being a lazzy."),
    ("Sort: kiwi, apple, mango", "apple, kiwi, mango"),
    ("Classify: 'The parcel never arrived.' Complaint or praise?", "Complaint."),
    ("Extract the date: The meeting moved to 4 March.", "4 March"),
    ("Next in the sequence 2, 6, 18, 54?", "162, since each term is three times the one before."),
    ("What is the area of a circle with radius 3?", "9π, about 28.27."),
    ("Prove that the sum of two even numbers is even.", "Let them be 2a and 2b. Then 2a + 2b = "
     "2(a + b), which is even."),
    ("Balance: H2 + O2 -> H2O", "2 H2 + O2 -> 2 H2O"),
    ("What do mitochondria do?", "They turn nutrients into ATP, the fuel of the cell."),
    ("How does a sailing boat move against the wind?", "It zigzags: the sail acts like a wing, and "
     "the keel turns the sideways push into forward motion."),
)  # fmt: skip
