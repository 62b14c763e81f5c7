package stream

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestCompressesLargeBatchesAlone(t *testing.T) {
	t.Parallel()
	lz4, err := kgo.DefaultCompressor(kgo.Lz4Compression())
	if err != nil {
		t.Fatal(err)
	}
	decompressor := kgo.DefaultDecompressor()
	for size, want := range map[int]kgo.CompressionCodecType{
		0: kgo.CodecNone, worthCompressing - 1: kgo.CodecNone, worthCompressing: kgo.CodecLz4, 1 << 20: kgo.CodecLz4,
	} {
		src := bytes.Repeat([]byte("a"), size)
		out, codec := large{lz4}.Compress(new(bytes.Buffer), src)
		back, err := decompressor.Decompress(out, codec)
		if codec != want || err != nil || !bytes.Equal(back, src) {
			t.Errorf("%d bytes: codec %v, expected %v; back come %d, %v", size, codec, want, len(back), err)
		}
	}
}
