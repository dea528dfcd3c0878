// Writes a vulnerability database as trivy reads it: trivy-database DIRECTORY <DESCRIPTION
//
// Into DIRECTORY go trivy.db (bbolt) and metadata.json, as github.com/aquasecurity/trivy-db lays them out, schema 2: a bucket
// for each version of a distribution, in that one for each package, in that the vulnerabilities; a bucket that says where a
// distribution's come from; and one with what is said of each vulnerability. DESCRIPTION is JSON, see Description.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// Description is what is known, and when it was known.
type Description struct {
	// Updated is when it was known; by default now.
	Updated time.Time
	// Known vulnerabilities.
	Known []Known
}

// Known is one vulnerability in one package of one version of a distribution.
type Known struct {
	Distribution, Package, ID, Severity, Title, Fixed string
}

type object map[string]any

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("say where to: trivy-database DIRECTORY <DESCRIPTION"))
	}
	var description Description
	fail(json.NewDecoder(os.Stdin).Decode(&description))
	if description.Updated.IsZero() {
		description.Updated = time.Now()
	}
	directory := os.Args[1]
	fail(os.MkdirAll(directory, 0o755))
	fail(os.RemoveAll(filepath.Join(directory, "trivy.db")))
	database, err := bbolt.Open(filepath.Join(directory, "trivy.db"), 0o644, nil)
	fail(err)
	fail(database.Update(func(tx *bbolt.Tx) error {
		for _, known := range description.Known {
			source := object{"ID": "podsec-tests", "Name": "podsec's tests", "URL": "https://example.invalid/"}
			about := object{"Title": known.Title, "Severity": known.Severity}
			put(tx, source, known.Distribution, "data-source")
			put(tx, object{"FixedVersion": known.Fixed}, known.ID, known.Distribution, known.Package)
			put(tx, about, known.ID, "vulnerability")
		}
		return nil
	}))
	fail(database.Close())
	metadata, err := json.Marshal(object{
		"Version":      2,
		"UpdatedAt":    description.Updated,
		"NextUpdate":   description.Updated.Add(24 * time.Hour),
		"DownloadedAt": description.Updated,
	})
	fail(err)
	fail(os.WriteFile(filepath.Join(directory, "metadata.json"), metadata, 0o644))
}

// put sets a key in a bucket in a bucket.
func put(tx *bbolt.Tx, value object, key string, buckets ...string) {
	bucket, err := tx.CreateBucketIfNotExists([]byte(buckets[0]))
	fail(err)
	for _, name := range buckets[1:] {
		bucket, err = bucket.CreateBucketIfNotExists([]byte(name))
		fail(err)
	}
	bytes, err := json.Marshal(value)
	fail(err)
	fail(bucket.Put([]byte(key), bytes))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "trivy-database:", err)
		os.Exit(1)
	}
}
