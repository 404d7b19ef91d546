"""References: the sources that the definitions of statistics name by author and year."""

from __future__ import annotations

REFERENCES = (
    "Chao, 1984. Nonparametric estimation of the number of classes in a population. Scand. J. of Statistics.",
    "Gini, 1912. Variabilità e mutabilità.",
    "Heaps, 1978. Information retrieval: computational and theoretical aspects.",
    "Jelinek et al., 1977. Perplexity: a measure of the difficulty of speech recognition tasks. Journal of the ASA.",
    "Kim et al., 2020. Instability of successive deep image compression. ACM Multimedia.",
    "Kullback & Leibler, 1951. On information and sufficiency. Annals of Mathematical Statistics.",
    "MacKay & Peto, 1995. A hierarchical Dirichlet language model. Natural Language Engineering.",
    "Miller, 1955. Note on the bias of information estimates. Information Theory in Psychology.",
    "Pearson, 1901. On lines and planes of closest fit to systems of points in space. Philosophical Magazine.",
    "Roy & Vetterli, 2007. The effective rank: a measure of effective dimensionality. EUSIPCO.",
    "Shannon, 1948. A mathematical theory of communication. Bell System Technical Journal.",
    "Wang et al., 2004. Image quality assessment: from error visibility to structural similarity. IEEE TIP.",
    "Zhang, 2019. Making convolutional networks shift-invariant again. ICML.",
    "Zhu et al., 2024. Addressing representation collapse in vector quantized models with one linear layer (SimVQ).",
    "Zipf, 1949. Human behavior and the principle of least effort.",
)
