# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""CompiledEngine.logits of scorer.py in C: the same arithmetic, in the same order. scorer.py explains the arrays."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport log, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef class Kernel:
    cdef Py_buffer buffers[5]
    cdef int held
    cdef const uint32_t *children
    cdef const uint32_t *steps
    cdef const double *idf
    cdef const double *weights
    cdef const double *intercept
    cdef Py_ssize_t nodes, symbols, labels
    cdef bint binary, sublinear, l1, l2

    def __cinit__(self, children, steps, idf, weights, intercept, bint binary, bint sublinear, norm):
        for array in (children, steps, idf, weights, intercept):
            PyObject_GetBuffer(array, &self.buffers[self.held], PyBUF_SIMPLE)
            self.held += 1
        self.children = <const uint32_t *>self.buffers[0].buf
        self.steps = <const uint32_t *>self.buffers[1].buf
        self.idf = <const double *>self.buffers[2].buf
        self.weights = <const double *>self.buffers[3].buf
        self.intercept = <const double *>self.buffers[4].buf
        cdef Py_ssize_t node, ends = self.buffers[0].len // sizeof(uint32_t), entries = self.buffers[1].len // sizeof(uint32_t)
        self.nodes = self.buffers[2].len // sizeof(double)
        self.labels = self.buffers[4].len // sizeof(double)
        self.symbols = self.nodes - entries
        self.binary, self.sublinear, self.l1, self.l2 = binary, sublinear, norm == "l1", norm == "l2"
        # What is read later is inside of the arrays, whatever the file says.
        if ends != self.nodes + 1 or self.buffers[3].len != self.nodes * self.labels * <Py_ssize_t>sizeof(double):
            raise ValueError("arrays of different lengths")
        for node in range(self.nodes):
            if self.children[node] > self.children[node + 1]:
                raise ValueError("children.npy is not in order")
        if self.symbols < 0 or self.children[self.nodes] > entries:
            raise ValueError("children.npy leads out of steps.npy")

    def __dealloc__(self):
        cdef int i
        for i in range(self.held):
            PyBuffer_Release(&self.buffers[i])

    def logits(self, list numbers, list longest):
        """`numbers` are each vectorizer's symbols in a text, `longest` its longest n-gram. Raises MemoryError."""
        cdef Py_ssize_t i, count, most = 0
        for i in range(len(numbers)):
            count = len(<list>numbers[i])
            most = max(most, count * <Py_ssize_t>longest[i])
        cdef uint64_t size = 16
        while size < 2 * <uint64_t>most:
            size *= 2
        # Two rows of labels; of each n-gram its node, how often it occurs, and its symbol; and a hash table of n-grams.
        cdef double *z = <double *>calloc(2 * self.labels * sizeof(double) + (3 * most + size) * sizeof(uint32_t), 1)
        if z == NULL:
            raise MemoryError
        try:
            for i in range(self.labels):
                z[i] = self.intercept[i]
            for i in range(len(numbers)):
                self.add(z, <list>numbers[i], longest[i], most, size)
            return [z[i] for i in range(self.labels)]
        finally:
            free(z)

    cdef int add(self, double *z, list numbers, Py_ssize_t longest, Py_ssize_t most, uint64_t size) except -1:
        """Add one vectorizer's features to z, which scratch memory follows."""
        cdef double *total = z + self.labels
        cdef uint32_t *node = <uint32_t *>(total + self.labels)
        cdef uint32_t *times = node + most
        cdef uint32_t *symbol = times + most
        cdef uint32_t *slots = symbol + most  # by hash: 0, or one more than the n-gram's place in `node`
        cdef Py_ssize_t count = len(numbers), found = 0, place, i, label
        cdef uint32_t current
        cdef uint64_t at
        cdef double frequency, value, norm = 0
        cdef const double *row
        memset(total, 0, self.labels * sizeof(double))
        memset(slots, 0, size * sizeof(uint32_t))
        for place in range(count):
            symbol[place] = numbers[place]
        for place in range(count):
            current = symbol[place]
            if current >= <uint64_t>self.symbols:
                continue
            i = place + 1
            while True:
                at = (current * <uint64_t>2654435769) & (size - 1)
                while slots[at] and node[slots[at] - 1] != current:
                    at = (at + 1) & (size - 1)
                if slots[at]:
                    times[slots[at] - 1] += 1
                else:
                    node[found] = current
                    times[found] = 1
                    found += 1
                    slots[at] = <uint32_t>found
                if i == count or i == place + longest:
                    break
                current = self.step(current, symbol[i])
                if not current:
                    break
                i += 1
        for i in range(found):
            value = self.idf[node[i]]
            if value == 0:
                continue
            frequency = 1 if times[i] == 1 or self.binary else log(times[i]) + 1 if self.sublinear else times[i]
            value *= frequency
            norm += value * value if self.l2 else value
            row = self.weights + node[i] * self.labels
            for label in range(self.labels):
                total[label] += frequency * row[label]
        if norm:
            value = 1 / sqrt(norm) if self.l2 else 1 / norm if self.l1 else 1
            for label in range(self.labels):
                z[label] += value * total[label]
        return 0

    cdef uint32_t step(self, uint32_t node, uint32_t symbol) noexcept:
        """The node one symbol longer, or 0, which is a symbol's own."""
        cdef uint32_t low = self.children[node], end = self.children[node + 1], high = end, middle
        while low < high:
            middle = low + (high - low) // 2
            if self.steps[middle] < symbol:
                low = middle + 1
            else:
                high = middle
        if low == end or self.steps[low] != symbol:
            return 0
        return low + <uint32_t>self.symbols
