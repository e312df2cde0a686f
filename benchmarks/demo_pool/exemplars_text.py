"""Exemplars that are running text: word problems, opinions, summaries."""

WORD_PROBLEMS = (
    ("A cyclist covers 84 kilometers in 6 hours. At the same pace, how far does she get in 9 "
     "hours?",
     "In one hour she covers 84 / 6 = 14 kilometers. In 9 hours she covers 9 * 14 = 126 "
     "kilometers. The answer is 126."),
    ("Three friends rent a holiday cabin for 4 nights. A night costs 75 euros. What is each "
     "friend's part if they split the bill evenly?",
     "The cabin costs 4 * 75 = 300 euros. Split by three, each pays 300 / 3 = 100 euros."),
    ("Grandpa has 48 stamps. He gives a quarter of them to his niece and loses 5. How many stamps "
     "remain in the album?",
     "A quarter of the stamps is 48 / 4 = 12.\nHe has 48 - 12 = 36 left, then 36 - 5 = 31.\n"
     "Answer: 31 stamps."),
    ("The tank of an aquarium loses 2 liters of water per day. It starts with 50 liters and must "
     "not fall under 30. For how many days can one wait before refilling?",
     "It may lose 50 - 30 = 20 liters. At 2 liters a day that takes 20 / 2 = 10 days."),
    ("Mr. Ortiz marked 27 exams before dinner and twice that number afterwards. There are 100 "
     "exams. How many are unmarked?",
     "After dinner he marked 2 * 27 = 54. Altogether he marked 27 + 54 = 81. Unmarked: "
     "100 - 81 = 19."),
    ("A rope of 96 meters is cut into pieces of equal length. After 11 cuts, how long is one "
     "piece?",
     "11 cuts make 11 + 1 = 12 pieces, and 96 / 12 = 8. Each piece is 8 meters long."),
    ("One printer makes 30 pages a minute, another one 45. Working side by side, how many minutes "
     "do they take for 600 pages?",
     "Side by side they make 30 + 45 = 75 pages a minute. 600 / 75 = 8, so they take 8 minutes."),
    ("Sam reads 14 pages on weekdays and 25 pages on each day of the weekend. How many pages does "
     "Sam read in a week?",
     "Weekdays: 5 * 14 = 70 pages. Weekend: 2 * 25 = 50 pages. In a week: 70 + 50 = 120 pages."),
)  # fmt: skip
SENTIMENT = (
    ("Review: The headphones broke after two days, and the seller ignores my mails.\nSentiment:",
     "negative"),
    ("Decide whether the author of this film review was pleased.\n\nFrom the first minute I was "
     "hooked, and the ending made me gasp.",
     "Pleased: the review is positive."),
    ("\"The soup came cold, the waiter colder.\" What attitude does that show?", "Negative."),
    ("Tweet: finally got the new phone and i am in love with it!!! Is it a happy or an unhappy "
     "one?",
     "A happy one (positive)."),
    ("Classify the polarity of the sentence as positive or negative: This vacuum cleaner picks up "
     "nothing but makes a lot of noise.",
     "negative"),
    ("Is the following opinion favorable? I was skeptical about the course, but it turned out to "
     "be "
     "the best money I spent this year.",
     "Yes, favorable. Sentiment: positive."),
    ("Product feedback: Lovely color, wretched zipper. Assign positive, negative or mixed.",
     "mixed"),
    ("Would you call this statement approving or disapproving? The novel drags on and its hero is "
     "a "
     "bore.",
     "Disapproving, so negative."),
)  # fmt: skip
SUMMARIES = (
    ("Summarize the passage: The village well dried up in July for the first time since 1921. "
     "Geologists drilled thirty meters down and found that a new quarry had diverted the spring. "
     "The quarry's owner has agreed to pay for a pipeline.",
     "A quarry diverted the spring of a village well, and its owner will pay for a pipeline."),
    ("Write a one-sentence abstract.\n\nBees were trained to tell photographs of two faces apart. "
     "After fifty rounds with sugar water they chose correctly four times out of five. They kept "
     "the skill for two days.",
     "Bees learned to distinguish two faces with sugar rewards and remembered it for two days."),
    ("Key message of this memo, please. From the first of June the canteen closes at two. The "
     "kitchen staff has shrunk from nine to five, and applications are rare. Vending machines "
     "will offer sandwiches in the afternoon.",
     "For want of staff the canteen will close at two from June, with machines as a substitute."),
    ("Make this shorter: When the ferry's engine failed, the captain let the passengers take turns "
     "at the oars of the lifeboat. They reached the pier singing, two hours behind schedule. The "
     "company has invited them all to dinner.",
     "Passengers rowed ashore after the ferry's engine failed and are invited to dinner."),
    ("Abstract wanted. An old windmill near the dam has been converted into a climbing hall. "
     "Volunteers spent four winters on the work. The highest route ends under the cap, where the "
     "millstones used to hang.",
     "Volunteers converted an old windmill into a climbing hall over four winters."),
    ("Reduce the following to its essence: A violin found in an attic was thought to be worthless. "
     "An expert dated the varnish to 1740. The family lends it to a gifted student instead of "
     "selling it.",
     "A violin from an attic proved to be from 1740 and is lent to a student."),
    ("Can you compress this into a single statement? The glacier above the valley has shrunk by a "
     "third in twenty years. Its meltwater feeds two power stations. Engineers now plan a "
     "reservoir to bridge dry summers.",
     "Because the glacier is shrinking, engineers plan a reservoir for dry summers."),
)  # fmt: skip
