"""Write the files."""

from benchmarks.demo_pool.build import files


def main() -> None:
    """Write every generated file and print its size."""
    for path, content in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path}  {len(content):,} bytes  {content.count(10):,} lines")


if __name__ == "__main__":
    main()
